"""Trains the encoders and the detail heads on samples of the generator."""
