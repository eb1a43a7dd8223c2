"""What `bench.likeness` adds to a judge."""

from __future__ import annotations

import numpy as np
import pytest

from bench.likeness import skin_distance
from judges.faces import Face

FACE = Face(np.array([40, 30, 20, 40], np.float32), np.zeros((5, 2), np.float32), 0.9)


def test_the_colour_of_the_skin_is_compared_inside_the_face() -> None:
    grey = np.full((100, 100, 3), 100, np.uint8)
    beside = grey.copy()
    beside[:, :40], beside[:, 60:] = 255, 0
    assert skin_distance(grey, beside, FACE) == 0
    # Greys differ in L alone: the neutral levels 100 and 119 have L = 42.4 and 50.0.
    assert skin_distance(grey, np.full_like(grey, 119), FACE) == pytest.approx(7.6, abs=0.1)
    red = grey.copy()
    red[..., 0] = 140
    assert skin_distance(grey, red, FACE) > 15


def test_a_face_beyond_the_border_is_compared_as_far_as_it_is_seen() -> None:
    outside = Face(np.array([-8, -10, 40, 60], np.float32), FACE.landmarks, 0.9)
    grey = np.full((100, 100, 3), 100, np.uint8)
    assert skin_distance(grey, grey, outside) == 0
