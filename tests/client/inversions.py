"""Inversions made up, taken apart, and written wrongly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from client import Frame, Inversion, InversionError, Refinement, RefineOptions, Terms
from client.files.sheet import png
from tests.client.fakes import SIDE, check_sentence


def made(**changes: object) -> Inversion:
    random = np.random.default_rng(0)
    fields: dict[str, object] = {
        "f": random.standard_normal((512, 16, 16), np.float32),
        "w_m_plus": random.standard_normal((12, 512), np.float32),
        "f_o": random.standard_normal((512, 16, 16), np.float32),
        "generator": "aaaaaaaaaaaaaaaa",
        "domain": "ffhq",
        "cut": 16,
        "frame": Frame.crop(1, 2, 30),
        "photo_size": (40, 50),
        "photo_sha256": "00ff",
        "photo_name": "me.jpg",
        "method": "encoder",
        "versions": {"client": "0.1.0", "server": "2.51.0"},
    }
    return Inversion(**{**fields, **changes})


def parts(inversion: Inversion) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    data = inversion.encode()
    size = int.from_bytes(data[:8], "little")
    return load(data), json.loads(data[8 : 8 + size])["__metadata__"]


def refused(path) -> str:
    with pytest.raises(InversionError) as caught:
        Inversion.load(path)
    check_sentence(caught.value)
    return str(caught.value)


def rewritten(path, *, tensors=None, drop=(), **metadata):
    found, texts = parts(made())
    found = {name: value for name, value in {**found, **(tensors or {})}.items() if name not in drop}
    texts = {key: value for key, value in {**texts, **metadata}.items() if value is not None}
    path.write_bytes(save(found, metadata=texts))
    return refused(path)


def target(side: int = 32) -> bytes:
    return png(np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8))


def held() -> Inversion:
    """An inversion that holds its target."""
    return made(target=target(SIDE))


def refinement(**changes: object) -> Refinement:
    fields: dict[str, object] = {
        "options": RefineOptions(preset="paper", seconds=1.5, weights={"mse": 2.0}),
        "step": 75,
        "steps": 300,
        "seconds": 41.25,
        "terms": Terms(5.0, 4.0, 3.0, 2.0, 1.0),
        "optimiser": {"a.b-c_1": np.ones((3, 4), np.float32), "count": np.array(7, np.float32)},
    }
    return Refinement(**{**fields, **changes})
