"""What anyone on the machine can do to a server that was started without secrets: infer, and nothing else.

The attacker here reads the server's command line, as every user can, and speaks HTTP/2 by hand, so that no client
library keeps it from sending what it read.
"""

from __future__ import annotations

import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.processes import shared_memory

Headers = Sequence[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    repository = tmp_path_factory.mktemp("repository")
    tiny.add_one(repository)
    with LocalTriton(repository, metrics_port=None, grace=0) as running:
        yield running


def restrictions(server: LocalTriton, kind: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of the server's restrictions, as its public command line has them."""
    words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    found = [word.partition(b"=")[2] for word in words if word.startswith(b"--" + kind.encode() + b"-restricted-")]
    return [(pair.partition(b"=")[0], pair.partition(b"=")[2]) for pair in (w.partition(b":")[2] for w in found)]


def variants(pairs: Headers, prefix: bytes = b"") -> list[Headers]:
    """Every way to send them that might be taken for what the server wants."""
    every: list[Headers] = [[]]
    for change in (bytes, bytes.strip, lambda value: value.replace(b"\n", b" "), lambda value: value[:-2] + b"\r\n "):
        every.append([(prefix + key, change(value)) for key, value in pairs])
        every.append([(prefix + key.lower(), change(value)) for key, value in pairs])
    return every


def literal(text: bytes) -> bytes:
    """A string of HPACK, not Huffman-coded."""
    rest, size = len(text) - 127, b""
    if rest < 0:
        return bytes([len(text)]) + text
    while rest >= 128:
        size += bytes([rest % 128 + 128])
        rest //= 128
    return b"\x7f" + size + bytes([rest]) + text


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def answers(server: LocalTriton, method: str, headers: Headers, message: bytes = b"") -> bool:
    """Whether a gRPC call gets a message back; a refusal has none."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/inference.GRPCInferenceService/{method}".encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *headers,
    ]
    block = b"".join(b"\x00" + literal(name) + literal(value) for name, value in fields)
    body = b"\x00" + struct.pack(">I", len(message)) + message
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as wire:
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        wire.sendall(frame(1, 4, 1, block) + frame(0, 1, 1, body))
        stream = wire.makefile("rb")
        while len(head := stream.read(9)) == 9:
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
            stream.read(int.from_bytes(head[:3], "big"))
            if kind == 0 and number == 1:
                return True
            if (number == 1 and (kind == 3 or flags & 1)) or kind == 7:
                return False
    return False


CALLS = {
    "SystemSharedMemoryStatus": b"",
    "SystemSharedMemoryRegister": b"\x0a\x01x\x12\x02/x\x20\x10",  # name, key, byte_size
    "CudaSharedMemoryStatus": b"",
    "RepositoryIndex": b"",
    "RepositoryModelUnload": b"\x12\x07add_one",
    "TraceSetting": b"",
    "LogSettings": b"",
}


def test_the_attacker_speaks_grpc(server: LocalTriton) -> None:
    """Or refusals would show nothing."""
    token = [(key.encode(), value.encode()) for key, value in server.admin_headers.items()]
    assert answers(server, "ServerMetadata", [])
    assert answers(server, "ModelStatistics", token)
    assert not answers(server, "ModelStatistics", [])


@pytest.mark.parametrize("method", CALLS)
def test_grpc_is_closed_even_to_who_reads_the_command_line(method: str, server: LocalTriton) -> None:
    pairs = restrictions(server, "grpc")
    assert len(pairs) == 2
    for headers in variants(pairs, b"triton-grpc-protocol-"):
        assert not answers(server, method, headers, CALLS[method])
    assert answers(server, "ServerMetadata", [])


PAGES = ["systemsharedmemory/status", "cudasharedmemory/status", "repository/index", "trace/setting", "logging"]


CLOSED = 0  # instead of a status: the connection was closed


def status(server: LocalTriton, page: str, headers: Headers = ()) -> int:
    method = "POST" if page == "repository/index" else "GET"
    lines = [f"{method} /v2/{page} HTTP/1.1".encode(), b"Host: x", b"Content-Length: 0", b"Connection: close"]
    assert server.http_url
    with socket.create_connection(("127.0.0.1", int(server.http_url.rpartition(":")[2])), timeout=10) as wire:
        wire.sendall(b"\r\n".join([*lines, *(key + b": " + value for key, value in headers)]) + b"\r\n\r\n")
        answer = wire.makefile("rb").readline().split()
        return int(answer[1]) if answer else CLOSED


@pytest.mark.parametrize("page", PAGES)
def test_http_is_closed_even_to_who_reads_the_command_line(page: str, server: LocalTriton) -> None:
    pairs = restrictions(server, "http")
    assert len(pairs) == 2
    for headers in variants(pairs):
        assert status(server, page, headers) in (CLOSED, 400, 403)
    assert status(server, "models/stats") == 403
    assert status(server, "models/stats", pairs[1:]) == 200


def test_the_clients_libraries_are_refused_in_words(server: LocalTriton) -> None:
    with grpc.InferenceServerClient(server.url) as client:
        for call in (
            lambda: client.register_system_shared_memory("stolen", "/stolen", 16),
            lambda: client.unload_model("add_one"),
            client.get_log_settings,
            client.get_inference_statistics,
        ):
            with pytest.raises(InferenceServerException, match=r"protocol is restricted|expecting header"):
                call()
        assert client.get_inference_statistics(headers=server.admin_headers).model_stats


def test_shared_memory_is_private_and_its_names_are_not_the_servers(server: LocalTriton) -> None:
    entries = shared_memory(server.shm_prefix)
    assert entries
    for entry in entries:
        assert stat.S_IMODE(Path("/dev/shm", entry).stat().st_mode) & 0o077 == 0
    with grpc.InferenceServerClient(server.url) as client:
        told = str(client.get_server_metadata())
    assert server.id in told
    assert server.id not in server.shm_prefix
    assert server.shm_prefix.removeprefix("unaligned-shm-").rstrip("-") not in told
