"""ICC profiles of colour spaces that files name without a profile: Adobe RGB by EXIF, and cICP of PNG."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
_WHITE: Final = (0.3127, 0.3290)
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# x, y of red, green and blue by the code points of ITU-T H.273; all of white D65.
_PRIMARIES: Final[dict[int, Points]] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_ADOBE: Final[Points] = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))


def _srgb(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _pq(v: NDArray[np.float64]) -> NDArray[np.float64]:
    # SMPTE ST 2084, with 203 cd/m2 as white.
    p = v ** (1 / 78.84375)
    light = (np.maximum(p - 0.8359375, 0) / (18.8515625 - 18.6875 * p)) ** (1 / 0.1593017578125)
    return np.minimum(light * 10_000 / 203, 1.0)


def _hlg(v: NDArray[np.float64]) -> NDArray[np.float64]:
    light = np.where(v <= 0.5, v**2 / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return np.minimum(light / 0.265, 1.0)


_TRANSFERS: Final[dict[int, Curve]] = {
    **dict.fromkeys((1, 6, 14, 15), _srgb),
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    8: lambda v: v,
    13: _srgb,
    16: _pq,
    18: _hlg,
}


@cache
def adobe_rgb() -> bytes:
    """Return the profile of Adobe RGB (1998)."""
    return _profile(_ADOBE, lambda v: v ** (563 / 256))


@cache
def by_code_points(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of a cICP chunk; None where it is sRGB, or unknown."""
    if (primaries, transfer) == (1, 13) or primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    return _profile(_PRIMARIES[primaries], _TRANSFERS[transfer])


def _profile(primaries: Points, curve: Curve) -> bytes:
    """Return an ICC profile, version 2, of a matrix and a curve of 1024 entries."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    x, y = _WHITE
    white = np.array([x / y, 1.0, (1 - x - y) / y])
    matrix = columns * np.linalg.solve(columns, white)
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    values = np.rint(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    curves = b"curv" + bytes(4) + struct.pack(">I", len(values)) + values.tobytes()
    text = b"unaligned"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 12 + 67)
    tags = {b"desc": description, b"wtpt": _xyz(_D50), b"rTRC": curves, b"gTRC": curves, b"bTRC": curves}
    tags |= {name: _xyz(adapted[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = (
        struct.pack(
            ">I4s4s4s4s4s12s4s",
            start + len(body),
            bytes(4),
            b"\x02\x40\0\0",
            b"mntr",
            b"RGB ",
            b"XYZ ",
            bytes(12),
            b"acsp",
        )
        + bytes(28)
        + _xyz(_D50)[8:]
        + bytes(48)
    )
    return header + struct.pack(">I", len(tags)) + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
