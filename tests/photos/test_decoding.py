"""Decoding in another process: its time limit, its crashes, and that it is used again."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from client.errors import PhotoError
from client.files import photo
from client.files.photo import Photo
from photos.decoding import Crashed, Decoding, Refused, TooSlow
from protocol import refine_pb2 as pb
from protocol.limits import ContractError
from sidecar.service import photo as served

ROOT = Path(__file__).parents[2]


@pytest.fixture
def decoding() -> Iterator[Decoding]:
    found = Decoding("tests.photos.decoders:obedient", seconds=5)
    yield found
    found.close()


def test_a_process_is_used_again_and_prints_nothing_into_answers(decoding: Decoding) -> None:
    said, body = decoding({}, b"abc")
    assert body == b"cba"
    assert decoding({"do": "print"}, bytes(10**6)) == (said, bytes(10**6))
    with pytest.raises(Refused, match="no such colour") as caught:
        decoding({"do": "raise"}, b"")
    assert caught.value.kind == "LookupError"
    assert decoding({}, b"")[0] == said


def test_what_is_too_slow_is_ended_and_the_next_photo_is_decoded(decoding: Decoding) -> None:
    decoding.seconds = 0.5
    with pytest.raises(TooSlow, match=r"longer than 0\.5 s"):
        decoding({"do": "sleep"}, b"")
    decoding.seconds = 60
    assert decoding({}, b"ab")[1] == b"ba"


@pytest.mark.slow
def test_time_in_which_everything_stood_still_does_not_count() -> None:
    code = (
        "from photos.decoding import Decoding; asked = Decoding('tests.photos.decoders:obedient', seconds=5); "
        "asked({}, b''); print('ready', flush=True); print(asked({'do': 'nap'}, b'ab')[1], flush=True)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(6)
        os.killpg(process.pid, signal.SIGCONT)
        assert process.stdout.read() == "b'ba'\n"


def test_a_crash_is_of_one_photo(decoding: Decoding) -> None:
    with pytest.raises(Crashed):
        decoding({"do": "crash"}, b"")
    assert decoding({}, b"ab")[1] == b"ba"


def test_memory_is_bounded() -> None:
    growing = Decoding("tests.photos.decoders:growing", seconds=60)
    with pytest.raises(Refused) as caught:
        growing({}, b"")
    assert caught.value.kind == "MemoryError"
    growing.close()


def test_a_photo_does_not_outlive_who_asked_for_it() -> None:
    code = (
        "import os, threading; from photos.decoding import Decoding; "
        "asked = Decoding('tests.photos.decoders:spinning', seconds=60); asked({}, b''); "
        "print(asked._idle[0]._process.pid, flush=True); asked({}, b'x')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        decoder = int(process.stdout.readline())
        time.sleep(0.3)
        process.kill()
    limit = time.monotonic() + 120
    while Path(f"/proc/{decoder}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
        # A child of none is reaped by init; in a container without one, a zombie stays.
        with suppress(OSError):
            if Path(f"/proc/{decoder}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
    else:
        assert not Path(f"/proc/{decoder}").exists()


@pytest.mark.parametrize(
    ("decoder", "says", "refusal"),
    [
        ("sleeping", "decoding takes longer than 60 seconds", "cannot decode the photo within 10 seconds"),
        ("crashing", "the decoder crashed, or ran out of memory", served.DAMAGED),
        (
            "spinning",
            "decoding takes far longer than that of other photos of its size",
            "invalid photo: it takes far longer to decode than others of its size",
        ),
    ],
)
def test_client_and_side_car_say_it_in_a_sentence(
    decoder: str, says: str, refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seconds = io.BytesIO(), 0.5 if decoder == "sleeping" else 60
    Image.new("RGB", (32, 32)).save(data, "PNG")
    (tmp_path / "it.png").write_bytes(data.getvalue())
    for module in (photo, served):
        monkeypatch.setattr(module, "_decoding", Decoding(f"tests.photos.decoders:{decoder}", seconds=seconds))
    with pytest.raises(PhotoError) as caught:
        Photo.open(tmp_path / "it.png")
    assert str(caught.value) == f"cannot read `it.png`: {says}"
    with pytest.raises(ContractError) as refused:
        served.square(pb.RefineRequest(encoded=data.getvalue()), resolution=32)
    assert str(refused.value) == refusal


def test_the_side_car_refuses_many_scans() -> None:
    data = io.BytesIO()
    Image.new("L", (64, 64)).save(data, "JPEG", progressive=True)
    start = data.getvalue().index(b"\xff\xda")
    bomb = data.getvalue()[:-2] + data.getvalue()[start:-2] * 200 + data.getvalue()[-2:]
    with pytest.raises(ContractError, match=r"a JPEG file of \d+ scans takes too long to decode"):
        served.square(pb.RefineRequest(encoded=bomb), resolution=64)
