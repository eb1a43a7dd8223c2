"""What is said of a result, and how two results are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.terms import Metrics
from protocol.verdict import Verdict, error, verdict

GOOD = Metrics(
    stlpips_alex=0.04, psnr_256=29.0, psnr=27.0, identity=0.95, landmarks=0.02, face=True, eyes=0.95,
)  # fmt: skip


def test_a_good_result_needs_no_reason() -> None:
    assert verdict(GOOD) == Verdict("good")
    assert str(verdict(GOOD)) == "good"


@pytest.mark.parametrize(
    ("metric", "fair", "poor", "fair_reason", "poor_reason"),
    [
        ("landmarks", 0.1, 0.2, "the face is slightly off its place", "the face is not where the photo has it"),
        ("eyes", 0.7, 0.5, "an eye differs from the photo's", "an eye does not look like the photo's"),
        ("identity", 0.7, 0.3, "the likeness is rough", "it looks like another person"),
        ("stlpips_alex", 0.1, 0.2, "some details of the photo are missing", "the picture lacks details of the photo"),
    ],
)
def test_each_metric_can_spoil_a_result(
    metric: str, fair: float, poor: float, fair_reason: str, poor_reason: str
) -> None:
    assert str(verdict(replace(GOOD, **{metric: fair}))) == f"fair: {fair_reason}"
    assert str(verdict(replace(GOOD, **{metric: poor}))) == f"poor: {poor_reason}"


def test_a_lost_face_says_all() -> None:
    lost = replace(GOOD, face=False, identity=None, landmarks=None, eyes=0.1)
    assert str(verdict(lost)) == "poor: no face is found where the photo has one"


def test_a_photo_without_a_face_is_judged_by_its_details() -> None:
    assert verdict(Metrics(stlpips_alex=0.04, psnr_256=29.0, psnr=27.0)).grade == "good"
    assert verdict(Metrics(stlpips_alex=0.2, psnr_256=20.0, psnr=19.0)).grade == "poor"


def test_every_metric_counts_in_a_comparison() -> None:
    best = error(GOOD)
    for worse in ({"stlpips_alex": 0.05}, {"identity": 0.9}, {"eyes": 0.9}, {"landmarks": 0.03}):
        assert error(replace(GOOD, **worse)) > best
    assert error(replace(GOOD, face=False, identity=None, landmarks=None)) > error(
        replace(GOOD, stlpips_alex=1.0, identity=-1.0, eyes=-1.0, landmarks=1.0)
    )
    assert error(Metrics(stlpips_alex=0.0, psnr_256=99.0, psnr=99.0)) == 0
