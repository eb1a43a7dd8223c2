"""The generator, the encoder and the head: shapes, the cut, and parity with the published network run by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets.paths import generator_file
from export.generator import FILES, extract_ir, load_generator
from networks import mobilestylegan
from networks.detail import LIMIT, Detail
from networks.encoder import BODIES, Constant, Encoder
from networks.learned_file import BACKBONE, load_detail, load_encoder, save_learned
from networks.mapping import MappingNetwork
from networks.mobilestylegan import InverseHaar, MobileStyleGAN, ModulatedConv
from networks.weights_file import WeightsError
from protocol.cuts import CUTS, W_PLUS

built = pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not built: make invert")


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ir")
    extract_ir(folder)
    return folder


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A MobileStyleGAN with few channels behind f: as many layers, at a fraction of the cost."""
    monkeypatch.setattr(mobilestylegan, "CHANNELS", (512, 512, 64, 64, 32, 16, 16))


@pytest.mark.usefixtures("thin")
def test_strips_paint_the_same_image() -> None:
    torch.manual_seed(3)
    network = MobileStyleGAN().eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, ModulatedConv):
            module.noise.normal_()
    f, w_m_plus = torch.randn(2, 512, 16, 16), torch.randn(2, 12, 512)
    whole = network.fine(f, w_m_plus)
    calls: list[int] = []
    network.to_image.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[2]))
    network.use_cache()
    strips = network.fine(f, w_m_plus)
    assert calls == [32] * 16
    assert whole.std() > 0.01
    torch.testing.assert_close(strips, whole, rtol=1e-4, atol=1e-5)


def test_inverse_haar_is_orthonormal() -> None:
    bands = torch.randn(1, 8, 4, 4)
    image = InverseHaar(2)(bands)
    assert image.shape == (1, 2, 8, 8)
    assert torch.allclose(image.square().sum(), bands.square().sum(), rtol=1e-5)
    low_only = torch.zeros(1, 4, 1, 1)
    low_only[0, 0] = 2.0
    assert torch.equal(InverseHaar(1)(low_only), torch.ones(1, 1, 2, 2))


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("cut", CUTS)
def test_halves_compose_to_the_whole(cut: int) -> None:
    torch.manual_seed(0)
    network = MobileStyleGAN().eval()
    for noise in (b for n, b in network.named_buffers() if n.endswith("noise")):
        noise.normal_()
    w_plus = torch.randn(1, network.num_styles, 512)
    n = network.coarse_styles(cut)
    with torch.inference_mode():
        f = network.coarse(w_plus[:, :n], cut=cut)
        assert f.shape == (1, 512, cut, cut)
        assert torch.allclose(network.fine(f, w_plus[:, n:]), network(w_plus), atol=1e-5)


@pytest.mark.usefixtures("thin")
def test_other_cuts_are_refused() -> None:
    with pytest.raises(ValueError, match="cut must be one of"):
        MobileStyleGAN().coarse_styles(32)


@pytest.mark.usefixtures("thin")
def test_every_style_reaches_the_image() -> None:
    network = MobileStyleGAN().eval().requires_grad_(False)
    network.input.constant.normal_()
    w_plus = torch.randn(1, network.num_styles, 512, requires_grad=True)
    network(w_plus).square().sum().backward()
    assert w_plus.grad is not None
    assert (w_plus.grad.abs().sum(dim=2) > 0).all()


def test_truncation_moves_towards_the_mean() -> None:
    mapping = MappingNetwork().requires_grad_(False)
    mapping.w_avg.normal_()
    z = torch.randn(3, 512)
    assert torch.equal(mapping(z, 0.0), mapping.w_avg.expand(3, -1))
    half = mapping(z, torch.tensor([[0.5], [1.0], [0.0]]))
    assert torch.allclose(half[0], (mapping(z)[0] + mapping.w_avg) / 2, atol=1e-6)
    assert torch.allclose(half[1], mapping(z)[1], atol=1e-6)


@pytest.fixture(scope="module")
def published(ir: Path) -> tuple[Any, Any]:
    """The published mapping and synthesis, run by OpenVINO."""
    openvino = pytest.importorskip("openvino")
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    mapping, synthesis = (
        core.compile_model(ir / f"{name}Network.xml", "CPU", exact) for name in ("Mapping", "Synthesis")
    )
    return mapping, synthesis


@built
@pytest.mark.parametrize("seed", [0, 1])
def test_parity_with_the_reference_run_by_openvino(published: tuple[Any, Any], seed: int) -> None:
    mapping, synthesis = published
    generator = load_generator("ffhq")
    z = np.random.default_rng(seed).standard_normal((1, 512)).astype(np.float32)
    reference_w = mapping(z)[0]
    reference = synthesis(reference_w)[0]
    with torch.inference_mode():
        w = generator.mapping(torch.from_numpy(z))
        image = generator.synthesis(
            torch.from_numpy(reference_w)[:, None].expand(-1, generator.synthesis.num_styles, -1)
        ).numpy()
    assert np.abs(w.numpy() - reference_w).max() <= 2e-5
    assert image.shape == (1, 3, 1024, 1024)
    assert reference.std() > 0.2  # a picture, not a flat field
    assert np.abs(image - reference).max() <= 2e-4


def test_a_changed_ir_file_is_refused(ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "MappingNetwork.xml", "0" * 64)
    with pytest.raises(ValueError, match=r"MappingNetwork.xml .* sha256 differs"):
        extract_ir(ir)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("body", BODIES)
def test_encoder_shapes(body: str, cut: int) -> None:
    encoder = Encoder(body=body, cut=cut).eval()
    encoder.f_mean.fill_(3.0)
    with torch.inference_mode():
        f = encoder(torch.zeros(2, 3, 8 * cut, 8 * cut))
    assert f.shape == (2, 512, cut, cut)
    assert torch.allclose(encoder.denormalise(encoder.normalise(f)), f, atol=1e-5)


def test_the_paper_encoder_has_eleven_convolutions_and_three_poolings() -> None:
    modules = list(Encoder(body="paper").body.modules())
    convolutions = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [128] * 3 + [256] * 3 + [512] * 5
    assert sum(isinstance(m, torch.nn.AvgPool2d) for m in modules) == 3


@pytest.mark.parametrize("body", BODIES)
def test_the_encoder_moves_with_its_input(body: str) -> None:
    """Away from the borders, a shift by one cell of f shifts f by one cell."""
    torch.manual_seed(0)
    encoder = Encoder(body=body, cut=16).eval().double()
    image = torch.zeros(1, 3, 128, 128, dtype=torch.float64)
    image[..., 56:72, 56:72] = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        background = encoder(torch.zeros_like(image))
        here = encoder(image) - background
        there = encoder(image.roll(8, dims=-1)) - background
    here, there = here[..., 6:10, 6:10], there[..., 6:10, 7:11]
    assert here.abs().max() > 0
    assert (there - here).abs().max() < 0.02 * here.abs().max()


def test_encoder_files_round_trip_in_half_precision(tmp_path: Path) -> None:
    encoder = Encoder(body="residual", cut=8, channels=24).eval()
    path = tmp_path / "encoder8.safetensors"
    save_learned(encoder, path, generator="abc")
    again = load_encoder(path, generator="abc")
    assert (again.body_name, again.cut) == ("residual", 8)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(again(image), encoder(image), atol=0.05)
    with pytest.raises(WeightsError, match="trained for generator abc, not xyz"):
        load_encoder(path, generator="xyz")
    with pytest.raises(WeightsError, match="no trained network"):
        load_encoder(tmp_path / "other.safetensors")


@pytest.mark.parametrize("cut", CUTS)
def test_detail_files_round_trip_in_half_precision(cut: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detail = Detail(cut=cut, count=9).eval()
    path = tmp_path / "detail.safetensors"
    save_learned(detail, path, generator="abc")
    again = load_detail(path, generator="abc")
    image = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        assert again(image).shape == (2, 9, 512)
        assert torch.allclose(again(image), detail(image), atol=0.05)
    with pytest.raises(WeightsError, match="expected a network of kind encoder, got detail"):
        load_encoder(path)


def test_the_backbone_of_detail_heads_is_stored_once(tmp_path: Path) -> None:
    heads = sorted(BACKBONE.parent.glob("*/detail*.safetensors"))
    assert len(heads) == 3
    for path in heads:
        assert not any(name.startswith("backbone.") for name in load_file(path))
    head = load_detail(heads[0])
    save_learned(head, tmp_path / "again.safetensors", generator="abc")
    assert (tmp_path / "again.safetensors").stat().st_size < heads[0].stat().st_size + 1000
    again = load_detail(tmp_path / "again.safetensors")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in head.state_dict().items())
    assert torch.equal(head.backbone.heads[0], load_file(BACKBONE)["heads.0"].float())


def test_the_encoder_of_w_plus_sees_where_things_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = Detail(cut=W_PLUS, count=16).eval()
    save_learned(head, tmp_path / "detail4.safetensors", generator="abc")
    again = load_detail(tmp_path / "detail4.safetensors")
    image = torch.zeros(1, 3, 256, 256)
    image[..., 96:128, 96:128] = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        here, there = head(image), head(image.roll(64, dims=-1))
        assert here.shape == (1, 16, 512)
        assert torch.allclose(again(image), here, atol=0.05)
    assert (here - there).abs().max() > 0.1 * here.std()


@pytest.mark.usefixtures("thin")
def test_the_constant_is_the_generators_whatever_the_image() -> None:
    network = MobileStyleGAN().eval()
    network.input.constant.data.normal_()
    constant = Constant.of(network)
    with torch.inference_mode():
        f = constant(torch.randn(2, 3, 256, 256))
        w_plus = torch.randn(1, network.num_styles, 512)
        assert torch.equal(f, network.input.constant.expand(2, -1, -1, -1))
        assert torch.equal(network.fine(f[1:], w_plus), network(w_plus))


def test_a_head_stays_in_bounds_whatever_it_sees() -> None:
    torch.manual_seed(0)
    detail = Detail()
    far = torch.randn(2, len(detail.mean)) * torch.tensor([[1e3], [1e6]])
    reach = LIMIT * 512**0.5 * detail.styles.weight.norm(dim=1)
    for styles in detail.of_features(far):
        assert ((styles.flatten() - detail.styles.bias).abs() <= reach * 1.001).all()
    near = torch.randn(2, len(detail.mean))
    straight = detail.styles(detail.hidden((near - detail.mean) / detail.scale))
    assert torch.equal(detail.of_features(near).flatten(1), straight)


def test_a_head_reads_the_same_styles_off_a_face_elsewhere() -> None:
    """Away from the borders, a shift by one cell of the coarsest map changes nothing."""
    torch.manual_seed(0)
    detail = Detail().eval()
    image = torch.zeros(1, 3, 256, 256)
    image[..., 96:128, 96:128] = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        here, there = detail(image), detail(image.roll(32, dims=-1))
        other = detail(0.5 * image)
    assert (here - there).abs().max() < 0.05 * (here - other).abs().max()


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("cut", [W_PLUS, *CUTS])
def test_modulations_are_all_that_the_fine_half_knows_of_its_styles(cut: int) -> None:
    torch.manual_seed(0)
    generator = MobileStyleGAN().eval()
    w = torch.randn(2, generator.fine_styles(cut), 512)
    with torch.inference_mode():
        scales = generator.modulations(w)
        assert len(scales) == w.shape[1]
        # A change that the last layers' affine maps cannot see changes neither their scales nor the image.
        seen = torch.cat([generator.layers[-1].conv2.modulation.weight, generator.to_image.modulation.weight])
        blind = torch.linalg.svd(seen).Vh[-1]
        other = w.clone()
        other[:, -2:] += 10 * blind
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(scales, generator.modulations(other), strict=True))
        f = torch.randn(1, 512, cut, cut)
        assert torch.allclose(generator.fine(f, other[:1]), generator.fine(f, w[:1]), atol=1e-3)
        other[:, -2:] += 1
        assert not torch.allclose(scales[-1], generator.modulations(other)[-1], atol=0.1)
