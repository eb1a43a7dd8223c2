"""Measurements: of quality, of speed, against peers and against the limit."""
