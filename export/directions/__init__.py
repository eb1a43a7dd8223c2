"""Directions of W: fits them, measures their effects, and writes their files."""
