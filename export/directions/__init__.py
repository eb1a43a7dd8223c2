"""Directions of W: fits them, measures what they do, and writes their files."""
