"""Reads generators as their publishers wrote them, and makes networks of ours from them."""
