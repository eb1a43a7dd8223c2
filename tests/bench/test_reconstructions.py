"""Cached reconstructions: what is measured once, and what is measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.edits import EDITS, STRENGTHS, EditQuality
from bench.likeness import Likeness
from bench.reconstructions import EYES, Judges, Reconstructions, mean_style
from bench.targets import Image8
from client.api import Inverter
from client.files import direction
from client.files.inversion import Inversion
from client.files.record import RefineOptions
from judges.faces import Face
from protocol.messages import Message, RefineRequest
from tests.client.calls import Call, Infer
from tests.client.fakes import SIDE as FAKE_SIDE
from tests.client.fakes import FakeTransport, add_faithful, compute
from tests.client.sidecar_fakes import STEPS, FakeRefineTransport, simulated

GOOD = Likeness(0.1, 0.2, 20, 18, identity=0.5, landmarks=0.01, face=1.0, second=0.6, skin=2.0)
STYLE = np.linspace(-1, 1, 512, dtype=np.float32)
TARGET = np.random.default_rng(0).integers(0, 256, (FAKE_SIDE, FAKE_SIDE, 3), np.uint8)


class FakeJudge:
    """Counts calls, and returns the brightness of the reconstruction."""

    def __init__(self) -> None:
        self.calls = 0
        self.edits: list[str] = []

    def __call__(self, target: Image8, reconstruction: Image8) -> Likeness:
        assert target.shape == (FAKE_SIDE, FAKE_SIDE, 3)
        self.calls += 1
        return replace(GOOD, psnr=float(reconstruction.mean()))

    def edit(self, direction: str, photo: Image8, edited: Image8) -> EditQuality:
        assert photo.shape == edited.shape
        self.edits.append(direction)
        return EditQuality(0.9, 0.8, float(edited.mean()) - float(photo.mean()), 0.02, 0.0)

    def face(self, _image: Image8) -> Face | None:
        return None

    @property
    def judges(self) -> Judges:
        return Judges(self, self.edit, self.face)


class Rig:
    """Fake servers, a judge, and a cache folder."""

    def __init__(
        self,
        folder: Path,
        *scripts: Callable[[RefineRequest], Iterator[Message]],
        generator: str = "0123456789abcdef",
        options: RefineOptions | None = None,
        **scaled: float,
    ) -> None:
        def fault(call: Call) -> object | None:
            """Answers of other networks: some of the outputs are scaled."""
            if not (scaled and isinstance(call, Infer) and call.model == "ffhq_invert"):
                return None
            answers = compute(call.model, dict(call.inputs))  # type: ignore[arg-type]
            return {name: answers[name] * np.float32(scaled.get(name, 1)) for name in call.outputs} | {
                "reconstruction": answers["reconstruction"]
            }

        self.triton = FakeTransport(generator=generator, fault=fault)
        self.sidecar = FakeRefineTransport(*scripts)
        self.judge = FakeJudge()
        inverter = Inverter(transport=self.triton, refine_transport=self.sidecar)
        self.measure = Reconstructions(inverter, STYLE, self.judge.judges, options or RefineOptions(), folder)

    def __call__(self, *methods: str, target: Image8 = TARGET) -> dict[str, Likeness]:
        codes = self.measure.codes(target, methods)
        return {method: self.measure.judged(target, code).quality() for method, code in codes}

    @property
    def rendered(self) -> list[Infer]:
        return [call for call in self.triton.inferences if call.model == "ffhq_fine"]


def refined_codes(folder: Path) -> list[Inversion]:
    return [Inversion.load(path) for path in folder.glob("*.safetensors")]


def test_the_mean_style_is_the_mapping_at_psi_0() -> None:
    transport = FakeTransport(fault=lambda _: {"w": STYLE[None]})
    np.testing.assert_array_equal(mean_style(transport), STYLE)
    (call,) = transport.inferences
    assert (call.model, call.inputs["psi"].tolist()) == ("ffhq_mapping", [[0.0]])


def test_methods_differ_in_their_codes(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert list(rig("mean", "fast", "refined")) == ["mean", "fast", "refined"]
    mean, fast, refined = (call.inputs for call in rig.rendered)
    np.testing.assert_array_equal(mean["w_m_plus"][0], np.tile(STYLE, (12, 1)))
    np.testing.assert_array_equal(mean["f"], fast["f"])
    assert (fast["w_m_plus"] == 0.5).all()
    (request,) = rig.sidecar.requests
    np.testing.assert_array_equal(request.f, fast["f"][0])
    np.testing.assert_array_equal(request.w_m_plus, fast["w_m_plus"][0])
    (code,) = refined_codes(tmp_path)
    assert code.refinement is not None and code.refinement.step == STEPS
    np.testing.assert_array_equal(refined["f"][0], code.f)
    np.testing.assert_array_equal(code.target_pixels(), TARGET)


def test_another_head_paints_a_faithful_code_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_faithful(monkeypatch)
    head = tmp_path / "head"
    head.write_bytes(b"one")
    monkeypatch.setattr("bench.reconstructions.picture_head_file", lambda _domain, _cut: head)
    rig = Rig(tmp_path)
    rig("mean", "fast")
    assert rig.judge.calls == 2
    head.write_bytes(b"two")
    rig("mean", "fast")
    assert rig.judge.calls == 3


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    first, again = Rig(tmp_path), Rig(tmp_path)
    qualities = first("mean", "fast", "refined")
    assert first.judge.calls == 3
    assert again("refined", "fast", "mean") == qualities
    assert (again.judge.calls, again.rendered, again.sidecar.requests) == (0, [], [])
    codes = again.measure.codes(TARGET, ["mean", "fast"])
    pictures = {method: again.measure.judged(TARGET, code).picture() for method, code in codes}
    assert pictures["fast"].shape == (FAKE_SIDE, FAKE_SIDE, 3)
    assert pictures["fast"].mean() == qualities["fast"].psnr != pictures["mean"].mean()


@pytest.mark.parametrize("change", [{"f": 0.5}, {"w_m_plus": 2.0}, {"generator": "another"}])
def test_other_networks_are_measured_again(tmp_path: Path, change: dict[str, object]) -> None:
    Rig(tmp_path)("fast", "refined")
    other = Rig(tmp_path, **change)  # type: ignore[arg-type]
    other("fast", "refined")
    assert (other.judge.calls, len(other.sidecar.requests)) == (2, 1)
    assert other.sidecar.requests[0].resume is None


def test_another_detail_head_leaves_the_mean_alone(tmp_path: Path) -> None:
    Rig(tmp_path)("mean")
    other = Rig(tmp_path, w_m_plus=2.0)
    other("mean")
    assert other.judge.calls == 0


def test_another_target_and_other_judges_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rig(tmp_path)("fast")
    other = Rig(tmp_path)
    # The fake encoder sees the mean only, so that both targets have one code.
    other("fast", target=TARGET[::-1].copy())
    assert other.judge.calls == 1
    monkeypatch.setattr("bench.reconstructions.JUDGES", b"others")
    other("fast")
    assert other.judge.calls == 2


def test_other_options_and_recipes_are_refined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rig(tmp_path)("refined")
    shorter = Rig(tmp_path, options=RefineOptions(steps=7))
    shorter("refined")
    assert [request.options.steps for request in shorter.sidecar.requests] == [7]
    monkeypatch.setattr("bench.reconstructions.PRESETS", {"default": "another recipe"})
    changed = Rig(tmp_path)
    changed("refined")
    assert len(changed.sidecar.requests) == 1


def test_a_killed_refinement_continues_from_its_checkpoint(tmp_path: Path) -> None:
    def killed(step: int) -> None:
        if step == 33:
            raise KeyboardInterrupt

    cut = Rig(tmp_path / "cut", lambda request: simulated(request, killed))
    with pytest.raises(KeyboardInterrupt):
        cut("fast", "refined")
    again, whole = Rig(tmp_path / "cut"), Rig(tmp_path / "whole")
    assert again("fast", "refined") == whole("fast", "refined")
    assert again.judge.calls == 1
    (request,) = again.sidecar.requests
    assert request.resume is not None and request.resume.step == 25
    (one,), (other,) = refined_codes(tmp_path / "cut"), refined_codes(tmp_path / "whole")
    np.testing.assert_array_equal(one.f, other.f)


def test_a_killed_measurement_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeJudge, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        Rig(tmp_path)("fast")
    monkeypatch.undo()
    again = Rig(tmp_path)
    again("fast")
    assert again.judge.calls == 1


def test_edits_are_of_the_photo_and_made_once(tmp_path: Path) -> None:
    own = direction.load("ffhq", "age").generator
    rig = Rig(tmp_path, generator=own)
    ((_, code),) = rig.measure.codes(TARGET, ["fast"])
    found = rig.measure.edited(TARGET, code)
    assert {strength: list(ends) for strength, ends in found.items()} == {
        strength: list(EDITS) for strength in STRENGTHS
    }
    every = [sign * strength for strength in STRENGTHS for sign in (-1, 1)]
    assert rig.judge.edits == [name for name in EDITS for _ in every]
    sent = [call.inputs["strengths"].ravel().tolist() for call in rig.triton.inferences if call.model == "ffhq_edit"]
    np.testing.assert_allclose(sent, [every] * len(EDITS), rtol=1e-6)
    lowest, low, high, highest = (
        found[s]["age"][end].edit().score or 0 for s, end in ((2.8, 0), (2, 0), (2, 1), (2.8, 1))
    )
    assert lowest < low < high < highest
    # The fake generator's pictures are even: what else is seen is the photo.
    assert found[2]["age"][1].picture().std() > 0.5 * TARGET.std()
    again = Rig(tmp_path, generator=own)
    assert [ends["age"][0].edit() for ends in again.measure.edited(TARGET, code).values()] == [
        ends["age"][0].edit() for ends in found.values()
    ]
    assert (again.judge.edits, again.triton.inferences) == ([], [])


def test_eyes_are_not_scaled(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    ((_, code),) = rig.measure.codes(TARGET, ["fast"])
    shown = rig.measure.eyes(TARGET, code)
    assert min(EYES) > FAKE_SIDE  # so that all of the picture is seen
    np.testing.assert_array_equal(shown[:FAKE_SIDE], TARGET)
    assert shown.shape == (2 * FAKE_SIDE, FAKE_SIDE, 3)
