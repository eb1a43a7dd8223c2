"""Untrusted photos: decoded in a process that can be ended, and checked for the work that they cause."""
