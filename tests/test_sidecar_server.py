"""The side-car's process: TLS, photos, the log, the command line."""

from __future__ import annotations

import io
import json
import logging
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from sidecar import cli, log, photo
from sidecar.job import InvalidRequest
from sidecar.server import StartError, Tls
from tests.test_sidecar_batcher import PIXELS, F, Running, W, running, tensor, until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.pem, client.pem and other.pem with their keys; the first two are their own authorities."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not here")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=["tls", "mutual"])
def locked(request: pytest.FixtureRequest, certificates: Path) -> Iterator[tuple[str, Running]]:
    authority = certificates / "client.pem" if request.param == "mutual" else None
    tls = Tls(certificate=certificates / "server.pem", key=certificates / "server.key", client_ca=authority)
    with running(tls=tls) as side:
        side.engine.go(1000)
        yield request.param, side


def asked(side: Running, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode | None:
    """The status of one small job over a connection of one's own, None for success."""
    where, options = side._where["grpc"], [("grpc.enable_http_proxy", 0)]
    channel = grpc.secure_channel(where, credentials, options) if credentials else grpc.insecure_channel(where, options)
    request = pb.RefineRequest(
        generator="f" * 16,
        domain="fake",
        pixels=pb.Pixels(width=16, height=16, rgb=PIXELS.tobytes()),
        f=tensor(F),
        w_m_plus=tensor(W),
        f_o=tensor(F),
        options=pb.Options(steps=1),
    )
    with channel:
        try:
            until(refine_pb2_grpc.RefinementStub(channel).Refine(request, timeout=20), "done")
        except grpc.RpcError as problem:
            return problem.code()  # type: ignore[attr-defined,no-any-return]
    return None


def test_only_who_may_is_answered(locked: tuple[str, Running], certificates: Path) -> None:
    kind, side = locked
    ca, key, chain = ((certificates / name).read_bytes() for name in ("server.pem", "client.key", "client.pem"))
    anonymous = grpc.ssl_channel_credentials(ca)
    known = grpc.ssl_channel_credentials(ca, key, chain)
    wrong_pair = [(certificates / f"other.{end}").read_bytes() for end in ("key", "pem")]
    stranger = grpc.ssl_channel_credentials(ca, *wrong_pair)
    mistaken = grpc.ssl_channel_credentials(wrong_pair[1])
    refused = grpc.StatusCode.UNAVAILABLE
    assert asked(side, None) == refused
    assert asked(side, mistaken) == refused
    assert asked(side, known) is None
    assert asked(side, anonymous) == (refused if kind == "mutual" else None)
    assert asked(side, stranger) == (refused if kind == "mutual" else None)


def test_a_missing_certificate_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nothing\.key cannot be read: No such file"):
        Tls(certificate=tmp_path / "nothing.pem", key=tmp_path / "nothing.key").credentials()


def encoded(picture: Image.Image, form: str, **options: object) -> pb.RefineRequest:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return pb.RefineRequest(encoded=buffer.getvalue())


FORMS = {"PNG": ("RGB", "L", "P", "RGBA"), "JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA")}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in FORMS.items() for mode in modes])
@pytest.mark.parametrize("side", [16, 64, 300])
def test_photos_of_any_mode_and_size_become_the_generators(form: str, mode: str, side: int) -> None:
    picture = Image.new("RGB", (side, side), (200, 100, 50)).convert(mode)
    found = photo.square(encoded(picture, form), resolution=64)
    assert (found.shape, found.dtype) == ((64, 64, 3), np.uint8)
    if mode != "L":
        assert np.abs(found.mean(axis=(0, 1)) - (200, 100, 50)).max() < 12


def test_pixels_of_the_generators_size_are_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    request = pb.RefineRequest(pixels=pb.Pixels(width=64, height=64, rgb=pixels.tobytes()))
    assert np.array_equal(photo.square(request, resolution=64), pixels)


def test_orientation_is_applied() -> None:
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = photo.square(encoded(picture, "JPEG", exif=exif), resolution=64)
    assert found[:20].mean() > 200
    assert found[-20:].mean() < 50


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BMP"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(InvalidRequest, match="not a whole PNG, JPEG or WebP"):
        photo.square(encoded(Image.new("RGB", (64, 64)), form), resolution=64)


@pytest.mark.parametrize("side", [4097, 60_000])
def test_a_header_that_claims_too_much_is_not_decoded(side: int) -> None:
    data = bytearray(encoded(Image.new("L", (64, 64)), "PNG").encoded)
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(InvalidRequest, match="side must be"):
        photo.square(pb.RefineRequest(encoded=bytes(data)), resolution=64)


@given(st.data())
def test_damaged_photos_are_refused_or_read(data: st.DataObject) -> None:
    whole = encoded(
        Image.new("RGB", (32, 32), (9, 99, 199)), data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    ).encoded
    spoilt = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(spoilt) - 1)), max_size=4)):
        if spoilt:
            spoilt[place] ^= data.draw(st.integers(1, 255))
    with suppress(InvalidRequest):
        assert photo.square(pb.RefineRequest(encoded=bytes(spoilt)), resolution=16).shape == (16, 16, 3)


def test_log_lines_are_json_with_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    logging.getLogger("sidecar").info("job ended", extra={"request_id": "r1", "outcome": "steps"})
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["request_id"], line["outcome"]) == ("job ended", "info", "r1", "steps")
    log.configure("text")
    logging.getLogger("sidecar").info("job ended", extra={"request_id": "r1"})
    assert capsys.readouterr().err.rstrip().endswith("info job ended request_id=r1")


def sidecar(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "arguments", [("--batch", "0"), ("--port", "70000"), ("--grace", "-1"), ("--tls-cert", "x"), ("--slice", "x")]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_taken_port_is_told_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = sidecar("--port", str(taken.getsockname()[1]), "--metrics-port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: The address 127.0.0.1:")


def test_every_option_is_explained() -> None:
    for action in cli.parser()._actions:
        assert action.help, action.dest
