"""Frames: which part of a photo becomes the generator's square, and how it is cut out."""
