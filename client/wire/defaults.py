"""Where the servers are, and which domain is meant, by default."""

from __future__ import annotations

from typing import Final

DEFAULT_URL: Final = "127.0.0.1:8001"
DEFAULT_REFINE_URL: Final = "127.0.0.1:8003"
DEFAULT_DOMAIN: Final = "ffhq"
