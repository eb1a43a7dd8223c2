"""Triton: what the client asks of it, and the transports that carry it."""
