"""The Python API: ``Inverter``, and ``AsyncInverter`` with the same methods as coroutines."""

from __future__ import annotations

from client.inverter import AsyncInverter
from client.inverter_sync import Inverter
from client.wire.defaults import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL

__all__ = ["DEFAULT_DOMAIN", "DEFAULT_REFINE_URL", "DEFAULT_URL", "AsyncInverter", "Inverter"]
