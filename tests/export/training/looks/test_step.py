from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from export.training.looks.balance import FOLLOWS, Balance
from export.training.looks.codes import length, swapped
from export.training.looks.critic import CodeCritic, Critic
from export.training.looks.draws import Batch, Batches
from export.training.looks.faces import Faces
from export.training.looks.full_size import nearly_aligned
from export.training.looks.losses import ImageLoss, seen
from export.training.looks.step import LONG, SHORT, Shown, Step
from networks.generator_file import Generator
from networks.looks import TwoLooks
from networks.short_head import ShortHead
from networks.similarity import IDENTITY
from tests.export.training.looks.conftest import Flat, Nobody, cheap_paint


def large(f: Tensor, w: Tensor) -> Tensor:
    return F.interpolate(cheap_paint(f, w), size=512, mode="nearest")


class Oracle(TwoLooks):
    """Looks that know the codes of a batch's samples."""

    def know(self, batch: Batch) -> None:
        self.known = batch

    def look(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(photo), 512, 16, 16), torch.zeros(len(photo), 12, 512)

    def look_again(self, photo: Tensor, painted: Tensor, f: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return self.normalise_f(self.known.f), self.normalise_w(self.known.w[:, 4:])

    def look_at_face(self, photo: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002
        return self.known.w[:, :4]


def make(
    generator: Generator,
    looks: TwoLooks,
    *,
    frozen: bool = True,
    critic: Critic | None = None,
    code_critic: CodeCritic | None = None,
) -> Step:
    flat = Flat()
    loss = ImageLoss(flat, flat, Nobody())  # type: ignore[arg-type]
    critics = {"critic": critic, "code_critic": code_critic}
    step = Step(generator.synthesis, looks, ShortHead(), loss, first_frozen=frozen, **critics)  # type: ignore[arg-type]
    step.paint = step.paint_to_learn = cheap_paint
    step.whole = step.full_size.whole = large
    return step


@pytest.fixture
def batches(generator: Generator, faces: Faces) -> Batches:
    directions = torch.randn(3, 16, 512, generator=torch.Generator().manual_seed(9))
    return Batches(generator, [(faces, 1.0)], directions, large)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_a_true_code_edits_truly(generator: Generator, batches: Batches) -> None:
    batch = batches.draw(2, 0, seeded())
    looks = Oracle()
    looks.know(batch)
    step = make(generator, looks)
    codes = step.encode(batch.photo, batch.theta, batch.edit)
    after = batch.w + batch.edit
    assert torch.allclose(codes.w_edited, after[:, 4:], atol=1e-5)
    # Moving is linear: f, and the move of what the edit changes, are the edited f's move.
    from networks.similarity import move

    expected = move(generator.synthesis.coarse(after[:, :4], cut=16), batch.theta)
    assert torch.allclose(codes.f_edited, expected, atol=1e-4)


def test_some_samples_are_shown_with_a_true_part(generator: Generator, batches: Batches) -> None:
    torch.manual_seed(0)
    batch = batches.draw(12, 1, seeded())
    codes = make(generator, TwoLooks()).encode(batch.photo, batch.theta, batch.edit)
    shown = swapped(batch, codes, seeded())
    styles = [torch.equal(a, b) for a, b in zip(shown.w[:12], batch.w[:, 4:], strict=True)]
    maps = [torch.equal(a, b) for a, b in zip(shown.f[:12], batch.f, strict=True)]
    assert 0 < sum(styles) < 12
    assert 0 < sum(maps) < 12
    assert not any(a and b for a, b in zip(styles, maps, strict=True))
    for number in range(13):
        if number == 12 or not styles[number]:
            assert torch.equal(shown.w[number], codes.w[number])
        if number == 12 or not maps[number]:
            assert torch.equal(shown.f[number], codes.f[number])
    assert torch.allclose(shown.w_edited - shown.w, codes.w_edited - codes.w, atol=1e-5)
    assert torch.allclose(shown.f_edited - shown.f, codes.f_edited - codes.f, atol=1e-4)


def test_styles_may_not_be_long_nor_f_flat(generator: Generator, batches: Batches) -> None:
    batch = batches.draw(2, 1, seeded())
    step = make(generator, TwoLooks())
    codes = step.encode(batch.photo, batch.theta, batch.edit)
    found = []
    for stretch in (1.0, 2.0, 0.5):
        w, f = torch.randn(3, 12, 512), torch.randn(3, 512, 16, 16)
        w, f = w / length(w, 2), f / length(f, (1, 2, 3))
        w_coarse = codes.w_coarse / length(codes.w_coarse, 2)
        changed = replace(codes, w=stretch * w, f=f / stretch, w_coarse=w_coarse)
        found.append(step._anchors(batch, changed)[1]["far"])
    assert found[0].shape == (3,)
    assert torch.equal(found[0], torch.zeros(3))
    assert torch.allclose(found[1], torch.tensor((2 - LONG) ** 2 + (SHORT - 0.5) ** 2).expand(3), atol=1e-3)
    assert torch.equal(found[2], torch.zeros(3))


def test_a_true_code_of_an_aligned_sample_costs_nothing(generator: Generator, batches: Batches) -> None:
    batch = batches.draw(2, 0, seeded())
    still = IDENTITY.expand(2, -1, -1)
    w = torch.cat([batch.w, batch.w + batch.edit])
    f = generator.synthesis.coarse(w[:, :4], cut=16)
    batch.theta, batch.f = still, f[:2]
    batch.target, batch.edited = F.avg_pool2d(large(f, w[:, 4:]), 2).chunk(2)
    looks = Oracle()
    looks.know(batch)
    _, parts, _ = make(generator, looks)(batch, seeded())
    for name in ("pixels", "looks", "core", "person", "edit", "change", "anchor", "coarse"):
        assert float(parts[name].mean()) < 1e-6, name


def test_gradients_reach_what_is_trained(generator: Generator, batches: Batches) -> None:
    torch.manual_seed(0)
    looks = TwoLooks()
    step = make(generator, looks)
    loss, parts, _ = step(batches.draw(1, 1, seeded()), seeded())
    loss.backward()
    assert {"edit", "change", "anchor", "base", "near", "keep", "pixels_photo"} <= set(parts)
    assert all(p.grad is None for p in looks.first.parameters())
    for part in (looks.second, looks.coarse_look):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0
    loss, parts, _ = make(generator, looks, frozen=False)(batches.draw(1, 1, seeded()), seeded())
    loss.backward()
    assert "first" in parts
    assert sum(float(p.grad.abs().sum()) for p in looks.first.parameters() if p.grad is not None) > 0


def test_the_short_head_learns_from_the_whole_half_alone(generator: Generator) -> None:
    torch.manual_seed(0)
    flat = Flat()
    head = ShortHead()
    loss = ImageLoss(flat, flat, Nobody())  # type: ignore[arg-type]
    step = Step(generator.synthesis, TwoLooks(), head, loss, first_frozen=True)  # type: ignore[arg-type]
    w = torch.randn(1, 12, 512, requires_grad=True)
    f = generator.synthesis.coarse(torch.randn(1, 4, 512), cut=16)
    shown = step.paint(f, w)
    shown.square().mean().backward()
    assert w.grad is not None
    assert all(p.grad is None for p in head.parameters())
    (step.paint_to_learn(f, w.detach()) - 1).square().mean().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_values_come_from_the_whole_half_and_gradients_from_the_head(generator: Generator, batches: Batches) -> None:
    batch = batches.draw(1, 1, seeded())
    looks = TwoLooks()
    pulls = {}
    for whole in (False, True):
        step = make(generator, looks)
        # The whole half paints what the head paints, but darker: the loss must see that.
        step.whole = step.full_size.whole = lambda f, w: large(f, w) - 0.5
        step.crops = False
        loss, _, shown = step(batch, seeded(), whole=whole)
        assert shown == Shown(None, None)
        looks.zero_grad()
        loss.backward()
        pulls[whole] = loss.detach(), [p.grad.clone() for p in looks.second.parameters() if p.grad is not None]
    assert torch.allclose(pulls[False][0], pulls[True][0], rtol=1e-4)
    for short, true in zip(pulls[False][1], pulls[True][1], strict=True):
        assert torch.allclose(short, true, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("number", range(4))
def test_one_photo_is_also_seen_at_full_size(generator: Generator, batches: Batches, number: int) -> None:
    torch.manual_seed(0)
    step = make(generator, TwoLooks(), critic=Critic(8))
    batch = batches.draw(1, 1, seeded(number))
    _, parts, shown = step(batch, seeded(number))
    assert {"head", "fooled"} <= set(parts)
    assert shown.crops is not None
    true, ours, counts = shown.crops
    assert ours.shape == (1, 3, 256, 256)
    assert true.shape == (2, 3, 256, 256)
    assert counts.shape == (1,)


def test_everything_can_go_through_the_whole_half(generator: Generator, batches: Batches) -> None:
    torch.manual_seed(0)
    step = make(generator, TwoLooks(), critic=Critic(8), frozen=False)
    batch = batches.draw(2, 1, seeded())
    assert batch.photo.shape[-1] == 256
    loss, parts, shown = step(batch, seeded(), whole=True)
    assert shown.crops is not None
    true, ours, counts = shown.crops
    assert (len(true), len(ours)) == (4, 6)  # samples and their edits; those, the photo and its edit
    assert torch.equal(counts[:2], counts[2:4])
    assert torch.equal(counts[:2], nearly_aligned(batch.places[:2]).float())
    assert {"full", "head", "fooled", "first"} <= set(parts)
    loss.backward()


def test_a_critic_draws_codes_to_the_generators_own(generator: Generator, batches: Batches) -> None:
    torch.manual_seed(0)
    step = make(generator, TwoLooks(), code_critic=CodeCritic(width=8))
    _, parts, shown = step(batches.draw(1, 0, seeded()), seeded())
    assert "natural" not in parts
    assert shown.codes is None
    batch = batches.draw(1, 2, seeded())
    batch.mask[1:] = 1
    batch.mask[2, :, :, :128] = 0
    _, parts, shown = step(batch, seeded())
    assert parts["natural"].shape == (2,)
    assert shown.codes is not None
    (true_f, true_w), (f, w) = shown.codes
    assert (true_f.shape, true_w.shape) == ((16, 512, 16, 16), (16, 12, 512))
    f, w = f.detach().requires_grad_(), w.detach().requires_grad_()
    assert step.code_critic is not None
    step._natural(batch.mask[1:], step.code_critic, (f, w)).mean().backward()
    assert f.grad is not None
    assert w.grad is not None
    assert bool((w.grad != 0).any(dim=2).all())
    # A patch is five cells wide: what lies farther beyond the photo's border has no say.
    strength = f.grad.abs().sum(dim=(1, 2))
    assert bool((strength[0, 2:-2] > 0).all())
    assert bool((strength[1, 8:-2] > 0).all())
    assert not strength[1, :6].any()


def test_crops_count_where_the_face_is_nearly_aligned() -> None:
    def placed(scale: float, degrees: float) -> Tensor:
        angle = torch.deg2rad(torch.tensor(degrees))
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        return torch.tensor([[cos, -sin, 0.4], [sin, cos, 0.0]])

    places = torch.stack(
        [placed(1, 0), placed(1.2, 10), placed(0.85, -11), placed(1.3, 0), placed(0.7, 0), placed(1, 15)]
    )
    assert nearly_aligned(places).tolist() == [True, True, True, False, False, False]


def test_critics_pull_by_their_shares(generator: Generator, batches: Batches) -> None:
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    balance = Balance([last], {"natural": 0.1, "fooled": 0.2})
    loss, terms = last.sum() * 5, {"natural": 0.5 * last.square().sum()}
    assert float(balance.sum(terms).detach()) == 0
    for _ in range(60):
        balance.weigh(loss, terms)
    expected = 0.1 * 5 * 2**0.5 / 5  # gradients of length 5 sqrt(2), and 5
    assert balance.weights["natural"] == pytest.approx(expected, rel=1e-4)
    assert balance.weights["fooled"] == 0
    assert float(balance.sum(terms).detach()) == pytest.approx(expected * 12.5, rel=1e-4)
    # A term without a gradient, as of no crop that counts, changes nothing.
    balance.weigh(loss, {"fooled": 0 * last.sum()})
    assert balance.weights["fooled"] == 0
    torch.manual_seed(0)
    step = make(generator, TwoLooks(), critic=Critic(8), code_critic=CodeCritic(width=8))
    batch = batches.draw(1, 1, seeded())
    plain, _, _ = step(batch, seeded())
    again, parts, _ = step(batch, seeded(), balance=True)
    assert 0 < FOLLOWS < 1
    assert step.balance.weights["natural"] > 0
    added = step.balance.sum({"natural": parts["natural"].mean(), "fooled": parts["fooled"]})
    assert torch.allclose(again, plain + added, rtol=1e-4)


def test_outside_of_the_photo_nothing_is_asked() -> None:
    photo, painted = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8, requires_grad=True)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    target = seen(photo, painted, mask)
    assert torch.equal(target[..., :4], photo[..., :4])
    assert torch.equal(target[..., 4:], painted.detach()[..., 4:])
    assert not target.requires_grad
