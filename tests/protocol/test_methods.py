"""Methods as data: that what client, side-car and networks each know of them is the same."""

from __future__ import annotations

import pytest

from client.errors import ParameterError
from client.triton.checks import checked_method
from protocol.cuts import prefix, space_of
from protocol.methods import METHODS, PRESETS
from sidecar.optimise import recipe


def test_every_refinement_of_a_method_is_a_recipe_of_its_space() -> None:
    assert set(PRESETS) == set(recipe.PRESETS)
    for method in METHODS.values():
        assert method.preset is None or PRESETS[method.preset] == method.space


def test_a_cut_has_a_space_and_a_name() -> None:
    assert [space_of(cut) for cut in (4, 8, 16)] == ["W+", "F/W+", "F/W+"]
    assert [prefix("cat", cut) for cut in (16, 8, 4)] == ["cat", "cat_cut8", "cat_cut4"]


def test_f_stays_where_it_is_in_the_recipes_of_w_plus() -> None:
    for name, found in recipe.PRESETS.items():
        assert (found.rate_f == 0) == (PRESETS[name] == "W+")


@pytest.mark.parametrize(
    ("method", "cut", "found"),
    [
        ("bdinvert", None, ("encoder", 16)),
        ("bdinvert", 8, ("encoder", 8)),
        ("im2s", None, ("mean", 4)),
        ("idinvert", None, ("encoder", 4)),
        ("psp", None, ("encoder", 4)),
    ],
)
def test_a_method_has_a_start_and_a_cut(method: str, cut: int | None, found: tuple[str, int]) -> None:
    assert checked_method(method, cut) == found


@pytest.mark.parametrize(
    ("method", "cut", "message"),
    [
        ("pti", None, "unknown method `pti`: expected bdinvert, im2s, idinvert, psp"),
        ("bdinvert", 4, "invalid cut 4: expected 8 or 16"),
        ("psp", 16, "the method psp works in W\\+, which has no cut"),
    ],
)
def test_what_there_is_not_is_refused(method: str, cut: int | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        checked_method(method, cut)
