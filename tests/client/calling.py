"""Calling one method of an inverter over a pretended server."""

from __future__ import annotations

import asyncio

import numpy as np
from PIL import Image

from client import AsyncInverter, Direction, Inverter, Photo
from tests.client.fakes import GENERATOR, FakeAsyncTransport, FakeTransport


def direction(**changes) -> Direction:
    return Direction(**{"name": "it", "vector": np.eye(1, 512, dtype=np.float32)[0], "generator": GENERATOR, **changes})


def result_of(name: str, *arguments, transport: FakeTransport, asynchronous: bool = False, **options):
    """Call one method of an inverter over the transport."""
    if not asynchronous:
        with Inverter(transport=transport) as inverter:
            return getattr(inverter, name)(*arguments, **options)

    async def go():
        async with AsyncInverter(transport=FakeAsyncTransport(transport)) as inverter:
            return await getattr(inverter, name)(*arguments, **options)

    return asyncio.run(go())


def inverted():
    image = Image.new("RGB", (64, 64), (10, 200, 30))
    return result_of("invert", Photo(image, "it", "00"), transport=FakeTransport()).inversion
