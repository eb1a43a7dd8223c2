"""Where the eyes of moved faces are, and how much their errors weigh."""

from __future__ import annotations

import math

import torch

from export.training.picture.eyes import WEIGHT, places, weights
from networks.close_ups import SAMPLE_EYES
from networks.similarity import IDENTITY, move


def test_the_eyes_of_an_aligned_face_are_where_samples_have_them() -> None:
    expected = torch.tensor(SAMPLE_EYES) * 256 - 0.5
    torch.testing.assert_close(places(IDENTITY[None])[0], expected)


def test_the_eyes_move_as_the_face_does() -> None:
    cos, sin = (1.3 * f(math.radians(25)) for f in (math.cos, math.sin))
    theta = torch.tensor([[[cos, -sin, 0.2], [sin, cos, -0.1]]])
    still = places(IDENTITY[None])[0]
    at = torch.arange(256.0)
    for number in range(2):
        column, row = still[number]
        spot = torch.exp(-((at - column).square() + (at - row)[:, None].square()) / 18)[None, None]
        moved = move(spot, theta)[0, 0]
        found = torch.stack([(moved * at).sum(), (moved * at[:, None]).sum()]) / moved.sum()
        torch.testing.assert_close(places(theta)[0, number], found, atol=0.1, rtol=0)


def test_errors_weigh_most_in_the_eyes() -> None:
    eyes = torch.tensor([[[80.0, 100.0], [140.0, 110.0]], [[-500.0, 0.0], [-400.0, 0.0]]])
    found = weights(eyes)
    assert found.shape == (2, 1, 256, 256)
    for column, row in ((80, 100), (140, 110)):
        torch.testing.assert_close(found[0, 0, row, column], torch.tensor(1 + WEIGHT), atol=0.01, rtol=0)
    assert found[0, 0, 220, 30] < 1.001
    torch.testing.assert_close(found[1], torch.ones(1, 256, 256))
