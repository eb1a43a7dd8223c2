"""The code that is rendered where another one is edited: checked, kept in the file, and left out of edits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client import Inversion, Inverter, Photo, Refined, cli
from client.errors import InversionError
from client.files.faithful import Faithful
from client.files.inversion import FAITHFUL_SCHEMA
from tests.client import fakes
from tests.client.fakes import GENERATOR, M_PLUS, SIDE, F, FakeTransport, check_sentence
from tests.client.inversions import made, parts, target
from tests.client.running import opened
from tests.client.sidecar_fakes import FakeRefineTransport
from tests.client.test_face_styles import direction, styles


def faithful(**changes: np.ndarray) -> Faithful:
    rng = np.random.default_rng(8)
    code = {"f": rng.normal(size=F).astype(np.float32), "w_m_plus": rng.normal(size=M_PLUS).astype(np.float32)}
    return Faithful(**{**code, **changes})


@pytest.fixture
def add_faithful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the pretended server give a faithful code, too; see `fakes`."""
    return lambda: fakes.add_faithful(monkeypatch)


def test_it_is_kept_whole(tmp_path: Path) -> None:
    inversion = made(faithful=faithful(), face=styles())
    assert parts(inversion)[1]["schema"] == FAITHFUL_SCHEMA
    inversion.save(tmp_path / "it")
    after = Inversion.load(tmp_path / "it")
    assert after.face is not None and after.faithful is not None
    for name in ("f", "w_m_plus"):
        np.testing.assert_array_equal(getattr(after.faithful, name), getattr(faithful(), name))
        np.testing.assert_array_equal(getattr(after.editable, name), getattr(inversion, name))
    assert after.editable.faithful is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("f", np.zeros((512, 8, 8), np.float32), "'faithful_f' of the inversion is"),
        ("f", np.full(F, np.nan, np.float32), "not finite"),
        ("w_m_plus", np.zeros((3, 512), np.float32), "'faithful_w_m_plus'"),
        ("w_m_plus", np.zeros(M_PLUS), "float64"),
    ],
)
def test_a_code_of_another_kind_is_refused(name: str, value: np.ndarray, says: str) -> None:
    with pytest.raises(InversionError, match=says) as caught:
        made(faithful=faithful(**{name: value}))
    check_sentence(caught.value)


def test_half_a_code_is_refused(tmp_path: Path) -> None:
    found, texts = parts(made(faithful=faithful()))
    del found["faithful_f"]
    (tmp_path / "it").write_bytes(save(found, metadata=texts))
    with pytest.raises(InversionError, match="faithful_f") as caught:
        Inversion.load(tmp_path / "it")
    check_sentence(caught.value)


def test_the_picture_is_of_both_and_the_other_is_edited(add_faithful: Callable[[], None], taken: Photo) -> None:
    add_faithful()
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        result = inverter.invert(taken)
        inversion = result.inversion
        assert inversion.faithful is not None
        assert (inversion.faithful.f == 1).all() and (inversion.f != 1).all()
        np.testing.assert_array_equal(inverter.render(inversion), result.reconstruction)
        assert (inverter.render(inversion.editable) != result.reconstruction).all()
        detailed = Inversion(**{**vars(inversion), "f": inversion.f + 1})
        assert (inverter.render(detailed) != result.reconstruction).all()
        inverter.edit(inversion, direction(), [1.0])
    (edit,) = (call for call in transport.inferences if call.model == "ffhq_edit")
    np.testing.assert_array_equal(edit.inputs["f"], inversion.f)


COMMANDS = {
    "invert": ["invert", "--fast", "me.png", "--crop", "20,10,60", "--edit", "age=3", "--force"],
    "edit": ["edit", "out/me/me.inversion.safetensors", "--direction", "age", "--strength", "3", "--force"],
    "batch": [
        "batch",
        "edit",
        "--photos",
        "me.png",
        "--edit",
        "age=3",
        "--fast",
        "--format",
        "png",
        "--frame",
        "20,10,60",
    ],
}


@pytest.mark.usefixtures("place")
def test_the_change_in_a_photo_is_that_of_the_other(add_faithful: Callable[[], None]) -> None:
    def made_by_all(folder: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        assert cli.main(COMMANDS["invert"]) == 0
        found = {"invert": np.asarray(opened("out/me/me.age+3.png"))}
        reconstruction = np.asarray(opened("out/me/me.reconstruction.png"))
        assert cli.main([*COMMANDS["edit"], "--out", folder]) == 0
        found["edit"] = np.asarray(opened(f"{folder}/me.age+3.png"))
        assert cli.main([*COMMANDS["batch"], "--out", f"{folder}/batch"]) == 0
        found["batch"] = np.asarray(opened(f"{folder}/batch/me.png/age+3.png"))
        np.testing.assert_array_equal(opened(f"{folder}/batch/me.png/reconstruction.png"), reconstruction)
        return found, reconstruction

    without, before = made_by_all("without")
    add_faithful()
    with_it, after = made_by_all("with")
    assert (before != after).all()
    # The pretended server draws the code whose change it is otherwise than the reconstruction, which is laid nowhere.
    for name, picture in with_it.items():
        np.testing.assert_array_equal(picture, with_it["edit"], err_msg=name)
        assert (picture != without["edit"]).any()


def test_a_refinement_starts_from_the_other_and_leaves_one_code() -> None:
    sidecar = FakeRefineTransport()
    inversion = made(faithful=faithful(), generator=GENERATOR, target=target(SIDE))
    with (
        Inverter(transport=FakeTransport(), refine_transport=sidecar) as inverter,
        closing(inverter.refine(inversion)) as events,
    ):
        *_, last = events
    assert isinstance(last, Refined)
    (request,) = sidecar.requests
    np.testing.assert_array_equal(request.f, inversion.f)
    assert last.inversion.faithful is None
