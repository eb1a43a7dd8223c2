from __future__ import annotations

import torch

from bench.codes import CodeQuality, eyes, table
from bench.edits import EditQuality
from bench.likeness import Likeness
from networks.similarity import IDENTITY

FOUND = Likeness(0.1, 0.2, 20.0, 18.0, identity=0.5, landmarks=0.01, face=1.0, second=0.4, skin=3.0)
LOST = Likeness(0.3, 0.4, 10.0, 8.0, identity=None, landmarks=None, face=0.0)
FULL = {"age": 40.0, "smile": 1.0, "yaw": 60.0}


def edits(low: float | None, high: float | None) -> dict[str, tuple[EditQuality, EditQuality]]:
    lost = EditQuality(None, None, None, None, 0.0)
    ends = [lost if score is None else EditQuality(0.8, 0.6, score, 0.02, 0.0) for score in (low, high)]
    return dict.fromkeys(FULL, (ends[0], ends[1]))


def cells(results: list[CodeQuality]) -> dict[str, str]:
    head, _, row = table(results, FULL).splitlines()
    names, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in (head, row))
    return dict(zip(names, values, strict=True))


def test_means_are_over_what_was_found_and_shares_over_everything() -> None:
    results = [
        CodeQuality("encoder", "photos", "a", FOUND, edits(0.0, 20.0)),
        CodeQuality("encoder", "photos", "b", LOST, edits(None, 5.0)),
    ]
    found = cells(results)
    assert (found["n"], found["Alex"], found["identity"], found["second"]) == ("2", "0.300", "0.50", "0.40")
    assert found["same person"] == "1 of 2"
    assert found["skin"] == "3.0"
    # Only where both ends show a face is the effect known: 20 of 40.
    assert found["age: identity, effect"] == "0.80 / 0.60, 50%"
    assert found["edits with a face"] == found["identity from 0.8"] == "9 of 12"
    assert found["landmarks after edits"] == "0.020"


def test_a_group_without_edits_says_so() -> None:
    found = cells([CodeQuality("encoder", "photos", "a", FOUND)])
    assert found["smile: identity, effect"] == "-"
    assert found["edits with a face"] == "0 of 0"


def test_the_eyes_are_cut_where_the_face_lies() -> None:
    image = torch.full((1, 3, 1024, 1024), -1.0)
    image[:, :, 480, 514] = 1.0  # between an aligned face's eyes
    for shift in (0, 100):
        theta = IDENTITY[None].clone()
        theta[0, 0, 2] = -2 * shift / 1024
        shown = eyes(image.roll(shift, dims=3), theta)
        assert shown.shape == (256, 512, 3)
        y, x = divmod(int(shown[..., 0].argmax()), 512)
        assert abs(y - 128) <= 1
        assert abs(x - 256) <= 1
