"""Decoders that do what a test asks them to."""

from __future__ import annotations

import os
import time
from typing import Any

from photos import child


def obedient(said: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    match said.get("do"):
        case "sleep":
            time.sleep(600)
        case "nap":
            for _ in range(20):  # a sleep alone would end while it is stopped
                time.sleep(0.1)
        case "crash":
            os._exit(3)
        case "print":
            print("not an answer", flush=True)
        case "raise":
            raise LookupError("no such colour")
    return {"pid": os.getpid()}, data[::-1]


def sleeping(_said: dict[str, Any], _data: bytes) -> tuple[dict[str, Any], bytes]:
    time.sleep(600)
    return {}, b""


def crashing(_said: dict[str, Any], _data: bytes) -> tuple[dict[str, Any], bytes]:
    os._exit(3)


def spinning(_said: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    child.allow(1)
    while data:
        pass
    return {}, data


def growing(_said: dict[str, Any], _data: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, bytes(child.MEMORY)
