from __future__ import annotations

import torch

from export.training.looks.critic import CodeCritic, Critic, critic_loss, mean_of
from export.training.looks.fast import SlicedBlur, SummedHaar, swapped
from export.training.looks.full_size import crop, place_crop
from export.training.looks.losses import ImageLoss, reduced, together
from networks.mobilestylegan import InverseHaar, MobileStyleGAN
from networks.perceptual import Blur
from networks.similarity import IDENTITY
from tests.export.training.looks.conftest import Flat, Nobody


def test_batches_are_compared_as_if_one_by_one() -> None:
    loss = ImageLoss(Flat(), Flat(), Nobody())  # type: ignore[arg-type]
    one, two = torch.rand(2, 2, 3, 256, 256) * 2 - 1
    still = IDENTITY.expand(2, -1, -1)
    found = together(loss.closer, {"one": (one, two, still), "two": (two[:1], two[:1], still[:1])})
    assert torch.allclose(found["one"], loss.closer(one, two, still))
    assert [len(value) for value in found.values()] == [2, 1]
    assert float(found["one"].min()) > 0
    assert float(found["two"]) == 0
    assert together(loss.closer, {}) == {}


def test_reducing_is_an_average() -> None:
    image = torch.rand(1, 3, 256, 256)
    assert torch.allclose(reduced(image, 128), torch.nn.functional.avg_pool2d(image, 2))
    assert reduced(image, 192).shape == (1, 3, 192, 192)
    assert reduced(image, 256) is image


def test_fast_forms_give_the_same_numbers() -> None:
    x = torch.randn(2, 16, 8, 8)
    assert torch.allclose(SummedHaar(InverseHaar(4))(x), InverseHaar(4)(x), atol=1e-6)
    y = torch.randn(2, 5, 20, 24)
    assert torch.allclose(SlicedBlur(Blur(5))(y), Blur(5)(y), atol=1e-6)
    network = MobileStyleGAN()
    f, w = torch.randn(1, 512, 16, 16), torch.randn(1, 12, 512)
    before = network.features(f, w)
    swapped(network, InverseHaar, SummedHaar)
    assert torch.allclose(network.features(f, w), before, atol=1e-4)
    assert not [m for m in network.modules() if isinstance(m, InverseHaar)]
    assert len([m for m in network.modules() if isinstance(m, SummedHaar)]) == 7


def test_crops_lie_about_the_face() -> None:
    rng = torch.Generator().manual_seed(0)
    # A face at half its size in the right lower quarter of the image.
    theta = torch.tensor([[2.0, 0.0, -1.0], [0.0, 2.0, -1.0]])
    middles = [[(c + 128) / 1024 for c in place_crop(theta, 1024, rng)] for _ in range(50)]
    for row, column in middles:
        assert 0.55 < row < 0.95
        assert 0.55 < column < 0.95
    images = torch.arange(512 * 512.0).view(1, 1, 512, 512).expand(2, 3, -1, -1)
    cut = crop(images, [(10, 20), (200, 100), (0, 0)])
    assert cut.shape == (2, 3, 256, 256)
    assert cut[1, 0, 0, 0] == 200 * 512 + 100
    assert crop(images[:0], [(0, 0)]).shape == (0, 3, 256, 256)


def test_the_critic_learns_to_part_crops() -> None:
    torch.manual_seed(0)
    critic = Critic(8)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
    true, ours = torch.rand(4, 3, 96, 96) * 0.1, torch.rand(4, 3, 96, 96)
    first = critic_loss(critic(true), critic(ours)).item()
    for _ in range(20):
        loss = critic_loss(critic(true), critic(ours))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.7 * first
    for seen, made in zip(critic(true), critic(ours), strict=True):
        assert seen.mean() > made.mean()
    none = critic_loss(critic(true), critic(ours), torch.zeros(4))
    assert torch.equal(none, critic_loss(critic(true), ()))
    assert mean_of(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 1.0])) == 5


def test_the_critic_of_codes_learns_that_parts_must_fit() -> None:
    torch.manual_seed(0)
    critic = CodeCritic(channels=8, styles=2, width=16)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
    # Each part of a code is as the generator's own; only together they are not.
    sign = torch.ones(8).index_fill(0, torch.arange(4), -1)
    f, w = torch.randn(8, 8, 8, 8) + sign[:, None, None, None], torch.randn(8, 2, 512) + sign[:, None, None]
    true, ours = (f, w), (f, w.flip(0))
    for _ in range(40):
        loss = critic_loss(critic(*true), critic(*ours))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    patches, styles = critic(*true)
    assert (patches.shape, styles.shape) == ((8, 1, 4, 4), (8, 2))
    assert patches.mean() > critic(*ours)[0].mean() + 1
    assert torch.allclose(styles.flip(0), critic(*ours)[1])
