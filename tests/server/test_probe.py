"""Which silence counts: `Patience`, and the probe that it judges."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import server
from server.probe import REQUEST_ID, Look, Patience

SECONDS = 2.0


def lost_after(looks: Iterable[Look], name: str = "fine_0_0") -> int | None:
    """The round in which an instance counts as stuck, if it ever does."""
    patience = Patience()
    healthy = {"other_0_0": Look(True, 0, 0.0)}
    for number, look in enumerate(looks, 1):
        if found := patience.stuck(healthy | {name: look}, SECONDS):
            assert found == name
            return number
    return None


def test_an_instance_that_does_nothing_is_stuck_after_three_rounds() -> None:
    assert lost_after([Look(False, 5, 7.0)] * 9) == 3
    assert lost_after([Look(True, 5, 7.0), *[Look(False, 5, 7.01)] * 9]) == 4


def test_an_instance_that_answers_anything_is_not() -> None:
    assert lost_after([Look(True, 0, 0.0)] * 99) is None
    assert lost_after(Look(False, number // 2, 0.0) for number in range(99)) is None
    assert lost_after(Look(number % 3 == 0, 0, 0.0) for number in range(99)) is None


def test_an_instance_that_computes_has_ten_times_as_long() -> None:
    busy = [Look(False, 0, 0.2 * SECONDS * number) for number in range(99)]
    assert lost_after(busy) == 30
    assert lost_after([*busy[:29], Look(True, 0, 90.0), *[Look(False, 0, 90.0 + n) for n in range(29)]]) is None
    assert lost_after([*busy[:10], *[busy[9]] * 9]) == 13


@pytest.mark.parametrize("names", [("fine_0_0", "fine_0_1"), ("fine_0_1", "fine_0_0")])
def test_the_instance_that_does_nothing_is_named(names: tuple[str, str]) -> None:
    idle, works = names
    patience = Patience()
    for number in range(3):
        found = patience.stuck({works: Look(False, 0, float(number)), idle: Look(False, 0, 0.0)}, SECONDS)
    assert found == idle


def test_the_backends_know_a_probe() -> None:
    batching = Path(server.__file__).parent / "backends/common/batching.py"
    assert re.findall(r'^PROBE = "(.*)"$', batching.read_text(), re.MULTILINE) == [REQUEST_ID]
