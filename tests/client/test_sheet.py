"""The contact sheet."""

from __future__ import annotations

import numpy as np

from client.files.sheet import TILE, png, sheet
from tests.client.running import opened


def test_sheet():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((TILE, TILE, 3), 200, np.uint8)
    page = np.asarray(sheet([("photo", black), ("inversion", white)]))
    height, width, _ = page.shape
    assert width > 2 * TILE
    assert TILE < height < 2 * TILE
    middle = height // 3
    assert page[middle, width // 4].tolist() == [0, 0, 0]
    assert page[middle, 3 * width // 4].tolist() == [200, 200, 200]
    captions = page[TILE + 14 :]
    assert (captions[:, : width // 2] < 100).any()
    assert (captions[:, width // 2 :] < 100).any()


def test_sheet_wraps_and_long_captions_stay_below_their_tile():
    tile = np.zeros((8, 8, 3), np.uint8)
    assert sheet([("", tile)] * 7).size[1] > 2 * TILE
    alone = np.asarray(sheet([("x" * 400, tile)]))
    assert (alone[:, :10] == 255).all()
    assert (alone[:, -10:] == 255).all()


def test_png_keeps_pixels(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "it.png").write_bytes(png(pixels))
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "it.png")), pixels)
