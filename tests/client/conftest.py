"""Fixtures of the client: pretended servers, and a place to work in."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client import Inverter, Photo
from tests.client.fakes import MARK, FakeTransport, FakeTriton, direction_file, serving
from tests.client.sidecar_fakes import FakeSidecar, refining


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))


@pytest.fixture(scope="module")
def url():
    with serving(FakeTriton(cuts=(16, 8, 4))) as address:
        yield address


@pytest.fixture
def sidecar():
    return FakeSidecar()


@pytest.fixture
def place(tmp_path, monkeypatch, url, sidecar):
    """An empty folder to work in, with both servers, a photo, and a direction."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNALIGNED_URL", url)
    monkeypatch.setattr("client.files.direction.FOLDER", tmp_path / "installed")
    direction_file(tmp_path / "installed/ffhq/age.safetensors", unit="one standard deviation", suggested_range="-3,3")
    direction_file(tmp_path / "installed/ffhq/smile.safetensors")
    # A face, so that nothing has to be said about its absence.
    found = picture()
    found.putpixel((60, 45), MARK)
    found.save("me.png")
    with refining(sidecar) as address:
        monkeypatch.setenv("UNALIGNED_REFINE_URL", address)
        yield tmp_path


@pytest.fixture(params=[False, True], ids=["blocking", "async"])
def asynchronous(request):
    return request.param


@pytest.fixture
def photo(tmp_path):
    picture().save(tmp_path / "me.png")
    return tmp_path / "me.png"


@pytest.fixture(scope="session")
def taken():
    """The same photo, decoded."""
    return Photo(picture(), "me.png", "ab" * 32)


@pytest.fixture(scope="module")
def inversion(taken):
    with Inverter(transport=FakeTransport()) as inverter:
        return inverter.invert(taken).inversion


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves; the seconds slept."""
    now = [0.0]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    async def sleep_async(seconds):
        sleep(seconds)

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("asyncio.sleep", sleep_async)
    return slept
