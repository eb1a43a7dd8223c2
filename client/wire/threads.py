"""Slow functions, off the event loop or in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """Run a function that would block the event loop."""
    return await asyncio.to_thread(function, *arguments, **options)


def inline(function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """Run it here: what :func:`in_thread` is without an event loop."""
    return function(*arguments, **options)
