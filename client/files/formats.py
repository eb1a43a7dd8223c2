"""What pictures of edits show, and their formats; in a module of their own, so that the help needs no Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Format = Literal["jpeg", "png"]
FORMATS: Final[Mapping[Format, str]] = {"jpeg": ".jpg", "png": ".png"}
# The whole photo with the change in it, or the generator's picture.
Show = Literal["photo", "render"]
