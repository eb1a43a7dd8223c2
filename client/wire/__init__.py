"""Connections: access, channels, request ids and settings."""
