from __future__ import annotations

import math

import pytest
import torch

from export.training.looks.draws import Batches, draw_edits, draw_move, draw_styles
from export.training.looks.faces import Faces
from export.training.moves import as_jpeg, degrade
from networks.generator_file import Generator
from networks.similarity import move
from tests.export.training.looks.conftest import cheap_paint


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture
def batches(generator: Generator, faces: Faces) -> Batches:
    directions = torch.randn(3, 16, 512, generator=seeded(9))
    return Batches(generator, [(faces, 1.0)], directions, cheap_paint)


def test_moves_stay_in_their_ranges() -> None:
    rng = seeded()
    moves = torch.stack([draw_move((0.5, 1.4), rng) for _ in range(400)])
    zoom = 1 / moves[:, :, 0].norm(dim=1)
    angle = torch.atan2(moves[:, 1, 0], moves[:, 0, 0]).rad2deg()
    assert 0.49 < zoom.min() < 0.6
    assert 1.2 < zoom.max() < 1.41
    assert 25 < angle.abs().max() <= 35.1
    assert moves[:, :, 2].abs().max() <= 0.5
    # Two of five hardly move.
    still = (angle.abs() < 35 * 0.16) & (moves[:, :, 2].abs().max(dim=1).values < 0.5 * 0.16)
    assert 0.3 < still.float().mean() < 0.6


def test_half_of_the_samples_mix_two_latents(generator: Generator) -> None:
    w = draw_styles(generator, 200, seeded())
    mixed = (w[:, 0] != w[:, -1]).any(dim=1)
    assert w.shape == (200, 16, 512)
    assert 0.35 < mixed.float().mean() < 0.6


def test_edits_go_along_directions_or_towards_others(generator: Generator) -> None:
    rng = seeded()
    directions = torch.zeros(2, 16, 512)
    directions[0, :, 0], directions[1, :8, 1] = 1, 1
    w = draw_styles(generator, 300, rng)[:, 0]
    edit, named = draw_edits(generator, directions, w, rng)
    assert 0.6 < named.float().mean() < 0.8
    along = edit[named]
    assert along.abs().max() <= 2.5
    assert not along[:, :, 2:].any()
    # The second direction leaves the late styles alone.
    second = along[:, :, 1].abs().sum(1) > 0
    assert second.any()
    assert not along[second][:, 8:].any()
    assert edit[~named].abs().sum() > 0


def test_a_batch_depends_on_its_generator_of_numbers_alone(batches: Batches) -> None:
    one, two, other = (batches.draw(2, 2, seeded(n)) for n in (3, 3, 4))
    for name in ("photo", "target", "mask", "theta", "edit", "w", "f", "edited"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert not torch.equal(one.photo, other.photo)


def test_samples_come_with_what_is_known_of_them(batches: Batches, generator: Generator) -> None:
    batch = batches.draw(2, 1, seeded(1))
    assert batch.samples == 2
    assert batch.photo.shape == (3, 3, 256, 256)
    assert batch.mask[:2].all()
    plain = generator.synthesis.coarse(batch.w[:, :4], cut=16)
    assert torch.allclose(batch.f, move(plain, batch.theta[:2]), atol=1e-5)
    assert torch.allclose(batch.target[:2], move(cheap_paint(plain, batch.w[:, 4:]), batch.theta[:2]), atol=1e-5)
    after = batch.w + batch.edit[:2]
    moved = cheap_paint(generator.synthesis.coarse(after[:, :4], cut=16), after[:, 4:])
    assert torch.allclose(batch.edited, move(moved, batch.theta[:2]), atol=1e-5)


def test_samples_lose_the_detail_that_photos_lack(batches: Batches) -> None:
    batch = batches.draw(8, 2, seeded())
    assert torch.equal(batch.photo[8:], batch.target[8:])
    assert not torch.equal(batch.photo[:8], batch.target[:8])
    image = torch.rand(1, 3, 64, 64, generator=seeded()).mul(2).sub(1)
    found = [degrade(image, rng=seeded(n)) for n in range(40)]
    assert all(one.shape == image.shape for one in found)
    assert all(-1 <= float(one.min()) <= float(one.max()) <= 1 for one in found)
    assert min(map(detail_of, found)) < 0.4 * detail_of(image)
    assert any(torch.equal(one, image) for one in found)
    assert torch.equal(degrade(image, rng=seeded(3)), found[3])
    rough, fine = (as_jpeg(image, quality=q) - image for q in (10, 95))
    assert 0 < fine.abs().mean() < rough.abs().mean()


def detail_of(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


def test_some_samples_have_styles_that_were_found_in_photos(batches: Batches) -> None:
    before = batches.draw(4, 0, seeded())
    batches.found = torch.randn(3, 16, 512)
    batch = batches.draw(4, 0, seeded())
    assert any(torch.equal(batch.w[0], found) for found in batches.found)
    assert not any(torch.equal(w, found) for w in batch.w[1:] for found in batches.found)
    assert not torch.equal(batch.f[0], before.f[0])


def test_photos_come_from_the_part_that_is_trained_on(batches: Batches, faces: Faces) -> None:
    asked: list[int] = []
    views = faces.views

    def noted(numbers: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.extend(numbers.tolist())
        return views(numbers, *rest)

    faces.views = noted  # type: ignore[method-assign]
    batches.photos(40, seeded())
    assert set(asked) <= set(faces.train.tolist())
    assert len(set(asked)) > 5
    assert math.isclose(sum(n in faces.heldout.tolist() for n in asked), 0)
