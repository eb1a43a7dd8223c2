from __future__ import annotations

import numpy as np
import pytest

from client.change.filters import blurred, multiplied, resized, warped
from client.change.flow import OF_HEAD, TO_RENDER, moved, registered
from tests.client.change.test_paste import picture

SIDE = 256


def images(seed: int = 0) -> np.ndarray:
    return picture(SIDE, SIDE, seed).astype(np.float32)


@pytest.mark.parametrize(("contrast", "light", "allowed"), [(1, 0, 0.3), (0.6, 70, 0.5)])
def test_the_flow_finds_a_small_shift_in_any_light(contrast: float, light: float, allowed: float) -> None:
    render = images()
    shift = np.broadcast_to(np.array([4, -3], np.float32), (SIDE, SIDE, 2))
    flow = registered(warped(render, shift) * contrast + light, render) * SIDE
    inner = np.s_[40:-40, 40:-40]
    np.testing.assert_allclose(np.median(flow[inner].reshape(-1, 2), axis=0), [4, -3], atol=allowed)


def test_equal_pictures_do_not_move() -> None:
    assert np.abs(registered(images(), images())).max() < 1e-5


def test_pictures_that_have_nothing_in_common_move_little() -> None:
    flow = registered(images(1), images(2))
    assert np.isfinite(flow).all()
    assert np.hypot(flow[..., 0], flow[..., 1]).max() <= TO_RENDER.bound + 1e-6


def test_landmarks_lead_where_the_pictures_do_not() -> None:
    flat = np.full((SIDE, SIDE, 3), 128, np.float32)
    points = np.array([[0.4, 0.5], [0.6, 0.5]])
    flow = registered(flat, flat, (points, points + np.array([0.02, 0])))
    middle = flow[SIDE // 2, SIDE // 2]
    assert 0.008 < middle[0] < 0.021
    assert abs(middle[1]) < 1e-3


def test_wide_blurs_are_those_of_narrow_ones_repeated() -> None:
    image = images()
    twice = blurred(blurred(image, 5), 5)
    np.testing.assert_allclose(blurred(image, 50**0.5)[20:-20, 20:-20], twice[20:-20, 20:-20], atol=4)
    assert resized(image, (SIDE, SIDE)) is image


def test_a_head_that_moves_as_a_whole_is_followed() -> None:
    plain = images()
    shift = np.broadcast_to(np.array([16, 6], np.float32), (SIDE, SIDE, 2))
    flow = moved(warped(plain, shift), plain) * SIDE
    inner = np.s_[30:-30, 30:-30]
    np.testing.assert_allclose(np.median(flow[inner].reshape(-1, 2), axis=0), [16, 6], atol=1)
    assert np.hypot(flow[..., 0], flow[..., 1]).max() <= OF_HEAD.bound * SIDE + 1e-3


def test_a_mouth_that_changes_moves_nothing() -> None:
    plain, edited = images(), images()
    edited[170:200, 90:166] = images(3)[170:200, 90:166]
    assert np.abs(moved(edited, plain)).max() * SIDE < 2


def test_a_product_reports_nothing_and_keeps_what_is_not_finite():
    found = multiplied(np.array([[1, 2], [np.inf, 1]], np.float32), np.array([0, 3], np.float32))
    np.testing.assert_array_equal(found, [6, np.nan])
    with pytest.raises(RuntimeWarning, match="invalid value"):
        np.rint(found).astype(np.uint8)
