from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from networks.looks import FACE, TwoLooks
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.short_head import ShortHead
from networks.similarity import IDENTITY, compose, resample


@pytest.fixture(scope="module")
def looks() -> TwoLooks:
    torch.manual_seed(0)
    return TwoLooks().eval().requires_grad_(requires_grad=False)


def test_both_looks_give_codes(looks: TwoLooks) -> None:
    photo = torch.rand(2, 3, 256, 256) * 2 - 1
    f, w = looks.look(photo)
    assert (f.shape, w.shape) == ((2, 512, 16, 16), (2, 12, 512))
    f2, w2 = looks.look_again(photo, torch.zeros_like(photo), f, w)
    assert (f2.shape, w2.shape) == (f.shape, w.shape)
    assert not torch.equal(f, f2)


def test_the_second_look_sees_what_is_wrong_and_the_code_so_far(looks: TwoLooks) -> None:
    photo = torch.rand(1, 3, 256, 256) * 2 - 1
    f, w = looks.look(photo)
    right, _ = looks.look_again(photo, photo, f, w)
    wrong, _ = looks.look_again(photo, -photo, f, w)
    other, _ = looks.look_again(photo, photo, torch.zeros_like(f), w)
    assert not torch.allclose(right, wrong)
    assert not torch.allclose(right - f, other)


@torch.no_grad()
def test_a_code_is_painted_once_between_the_looks(looks: TwoLooks) -> None:
    other = TwoLooks().eval()
    other.load_state_dict({**looks.state_dict(), "f_mean": torch.randn(512), "w_std": torch.rand(512) + 0.5})
    photo = torch.rand(2, 3, 256, 256) * 2 - 1
    painted = torch.randn_like(photo) * 2
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def paint(f: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        asked.append((f, w))
        return painted

    found = other(photo, paint)
    first = other.look(photo)
    second = other.look_again(photo, painted.clamp(-1.5, 1.5), *first)
    assert len(asked) == 1
    for (f, w), normalised in ((asked[0], first), (found, second)):
        torch.testing.assert_close(f, other.denormalise_f(normalised[0]))
        torch.testing.assert_close(w, other.denormalise_w(normalised[1]))


def test_the_coarse_look_sees_the_aligned_face_wherever_it_lies(looks: TwoLooks) -> None:
    torch.manual_seed(1)
    face = F.interpolate(torch.rand(1, 3, 8, 8), size=256, mode="bicubic") * 2 - 1
    # A face at half its size, to the right and below.
    theta = torch.tensor([[[2.0, 0.0, -0.5], [0.0, 2.0, -0.4]]])
    photo = resample(face, theta, (256, 256))
    there = looks.look_at_face(photo, theta)
    here = looks.look_at_face(face, IDENTITY[None])
    elsewhere = looks.look_at_face(photo, IDENTITY[None])
    assert there.shape == (1, 4, 512)
    assert (there - here).abs().mean() < 0.2 * (elsewhere - here).abs().mean()
    assert FACE == 128
    assert compose(theta, IDENTITY[None]).shape == theta.shape


def test_statistics_come_and_go(looks: TwoLooks) -> None:
    other = TwoLooks()
    other.f_mean.normal_()
    other.f_std.uniform_(0.5, 2)
    other.w_std.uniform_(0.5, 2)
    f, w = torch.randn(1, 512, 16, 16), torch.randn(1, 12, 512)
    assert torch.allclose(other.denormalise_f(other.normalise_f(f)), f, atol=1e-5)
    assert torch.allclose(other.denormalise_w(other.normalise_w(w)), w, atol=1e-5)
    assert torch.equal(looks.normalise_f(f), f)


def test_the_fine_half_is_its_features_and_the_rest() -> None:
    torch.manual_seed(0)
    synthesis = MobileStyleGAN().eval().requires_grad_(requires_grad=False)
    f, w = torch.randn(1, 512, 16, 16), torch.randn(1, 12, 512)
    features = synthesis.features(f, w)
    assert features.shape == (1, 512, 64, 64)
    whole = synthesis.fine(f, w)
    assert torch.equal(synthesis.finish(features, w[:, -LATE_STYLES:]), whole)
    # The late styles have no part in the features.
    other = torch.cat([w[:, :-LATE_STYLES], torch.randn(1, LATE_STYLES, 512)], dim=1)
    assert torch.equal(synthesis.features(f, other), features)


def test_the_short_head_paints_at_256() -> None:
    torch.manual_seed(0)
    head = ShortHead().eval()
    features, late = torch.randn(2, 512, 64, 64), torch.randn(2, LATE_STYLES, 512)
    image = head(features, late)
    assert image.shape == (2, 3, 256, 256)
    assert not torch.allclose(image, head(features, torch.randn_like(late)))
