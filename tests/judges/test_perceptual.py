"""ST-LPIPS: distances of the reference implementation, and what makes a loss usable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from assets.paths import BUILD
from assets.perceptual import WeightsMissing, lpips, lpips_of, stlpips
from networks.perceptual import STLPIPS, Variant

WHEEL = BUILD / "wheels" / "stlpips_pytorch-0.0.2-py3-none-any.whl"
weights = pytest.mark.skipif(not WHEEL.exists(), reason="the wheel with the weights is not fetched")
both = pytest.mark.parametrize("variant", ["vgg", "alex"])


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image and an unrelated one, made without random numbers: [1, 3, H, W] in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 20, torch.arange(width) / 20, indexing="ij")
    a = torch.stack([torch.sin(x + y), torch.cos(2 * x), torch.sin(x * y)])
    b = torch.stack([torch.cos(3 * y), torch.sin(x - y), torch.cos(x + 2 * y)])
    return a[None], b[None]


# (variant, height, width): distances that stlpips_pytorch 0.0.2 gives for `pair`, and for its first image and the
# same shifted by three pixels.
REFERENCE: dict[tuple[Variant, int, int], tuple[float, float]] = {
    ("vgg", 64, 64): (0.7149690, 0.1477978),
    ("vgg", 128, 96): (0.7360724, 0.2428419),
    ("vgg", 101, 77): (0.7669079, 0.1974301),
    ("alex", 64, 64): (0.6459125, 0.0735735),
    ("alex", 128, 96): (0.5768418, 0.0796871),
    ("alex", 101, 77): (0.5627650, 0.0596625),
}


@weights
@pytest.mark.parametrize("case", REFERENCE)
def test_distances_are_those_of_the_reference(case: tuple[Variant, int, int]) -> None:
    variant, height, width = case
    a, b = pair(height, width)
    network = stlpips(variant)
    apart, shifted = REFERENCE[case]
    torch.testing.assert_close(network(a, b), torch.tensor([apart]), atol=2e-6, rtol=0)
    torch.testing.assert_close(network(a, a.roll(3, dims=3)), torch.tensor([shifted]), atol=2e-6, rtol=0)


@weights
@both
def test_orders_images_as_an_eye_does(variant: Variant) -> None:
    a, b = pair(128, 128)
    network = stlpips(variant)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    weak, strong = network((a + 0.05 * noise).clamp(-1, 1), a), network((a + 0.4 * noise).clamp(-1, 1), a)
    assert 0 < weak < strong < network(a, b) * 1.5
    assert network(a, a).item() == 0


@both
def test_cached_features_give_the_same_distance(variant: Variant) -> None:
    network = STLPIPS(variant)
    a, b = pair(64, 64)
    batch = torch.cat([a, b])
    direct = network(batch, a)
    assert direct.shape == (2,)
    assert direct[0] < 1e-6 < direct[1]
    torch.testing.assert_close(network(batch, network.features(a)), direct)


@both
def test_gradient_reaches_the_image_and_nothing_else(variant: Variant) -> None:
    network = STLPIPS(variant)
    a, b = pair(64, 64)
    a = F.interpolate(a, 64).requires_grad_()
    network(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0
    assert all(p.grad is None for p in network.parameters())


@both
def test_gradient_is_finite_where_there_are_no_features(variant: Variant) -> None:
    network = STLPIPS(variant)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(-100)  # every feature is off
    a = torch.zeros(1, 3, 64, 64, requires_grad=True)
    network(a, pair(64, 64)[1]).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="vgg"):
        STLPIPS("squeeze")  # type: ignore[arg-type]


def test_lpips_is_the_published_formula(tmp_path: Path) -> None:
    """Written out in float64 over random weights, under the published names."""
    rng = torch.Generator().manual_seed(0)
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    backbone, channels = {"classifier.0.weight": torch.zeros(1)}, 3
    for place, width in zip(places, widths, strict=True):
        scale = (2 / (9 * channels)) ** 0.5
        backbone[f"features.{place}.weight"] = scale * torch.randn(width, channels, 3, 3, generator=rng)
        backbone[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=rng)
        channels = width
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=rng) for i, w in enumerate((64, 128, 256, 512, 512))
    }
    torch.save(backbone, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "heads.pth")
    network = lpips_of(tmp_path / "vgg16.pth", tmp_path / "heads.pth")

    def literal(image: torch.Tensor) -> list[torch.Tensor]:
        shift, scale = (
            torch.tensor(x).double()[:, None, None] for x in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
        )
        x, found = (image.double() - shift) / scale, []
        for number, place in enumerate(places):
            if number in (2, 4, 7, 10):
                found.append(x)
                x = F.max_pool2d(x, 2, 2)
            weight, bias = (backbone[f"features.{place}.{kind}"].double() for kind in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1).relu()
        return [y / (y.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for y in (*found, x)]

    a, b = pair(64, 64)
    expected = sum(
        (heads[f"lin{i}.model.1.weight"].double() * (x - y).square()).sum(dim=1).mean()
        for i, (x, y) in enumerate(zip(literal(a), literal(b), strict=True))
    )
    assert network(a, b).item() == pytest.approx(float(expected), rel=1e-5)


def test_lpips_says_where_its_backbone_belongs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"VGG16 at .*vgg16-397923af\.pth"):
        lpips()
