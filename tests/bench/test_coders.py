"""Coders: the codes of the two looks are those of the served graph, however their weights are stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bench import coders
from bench.coders import LooksCoder, shipped
from export.serve import looks as looks_graphs
from export.serve.looks import LooksGraph
from export.training.looks.weights import write_parts
from networks.drawn_looks import DrawnLooks
from networks.encoder import Encoder
from networks.generator_file import Generator
from networks.learned_file import save_learned
from networks.looks import CoarseStyles, TwoLooks
from networks.looks_file import save_coarse_styles, save_looks, save_picture_head, save_short_head
from networks.mapping import MappingNetwork
from networks.mobilestylegan import MobileStyleGAN
from networks.picture_head import PictureHead
from networks.pixels import from_array
from networks.short_head import ShortHead
from networks.similarity import IDENTITY

FILES = (
    "looks_file",
    "short_head_file",
    "coarse_look_file",
    "encoder_file",
    "faithful_looks_file",
    "faithful_head_file",
    "picture_head_file",
)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    synthesis = MobileStyleGAN().eval().requires_grad_(requires_grad=False)
    return Generator(mapping=MappingNetwork(depth=2), synthesis=synthesis, fingerprint="0" * 16)


@pytest.fixture(scope="module")
def networks() -> tuple[TwoLooks, ShortHead]:
    torch.manual_seed(1)
    return TwoLooks().eval(), ShortHead().eval()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a coder looks for the weights that ship."""
    for name in FILES:
        for module in (coders, looks_graphs):
            monkeypatch.setattr(module, name, lambda _domain, _cut, name=name: tmp_path / name)
    monkeypatch.setattr(coders, "EncoderCoder", lambda _generator, domain: f"the encoder of {domain}")
    return tmp_path


@torch.no_grad()
def test_the_codes_are_those_of_the_served_graph(
    generator: Generator, networks: tuple[TwoLooks, ShortHead], files: Path
) -> None:
    looks, head = networks
    save_looks(looks, files / FILES[0], generator=generator.fingerprint)
    save_short_head(head, files / FILES[1], generator=generator.fingerprint)
    save_coarse_styles(CoarseStyles.of(looks), files / FILES[2], generator=generator.fingerprint)
    save_learned(Encoder(cut=16), files / FILES[3], generator=generator.fingerprint)
    torch.manual_seed(2)
    faithful = TwoLooks().eval(), ShortHead().eval()
    save_looks(faithful[0], files / FILES[4], generator=generator.fingerprint)
    save_short_head(faithful[1], files / FILES[5], generator=generator.fingerprint)
    painter = PictureHead().eval()
    torch.nn.init.normal_(painter.retouch.correct.weight, std=0.02)
    save_picture_head(painter, files / FILES[6], generator=generator.fingerprint)
    write_parts(looks, files / "trained", "looks")
    write_parts(head, files / "trained", "head")
    served, trained = shipped(generator)[-1], LooksCoder.of_folder(generator, files / "trained")
    assert [coder.name for coder in (served, trained)] == ["looks", "trained"]
    assert isinstance(served, LooksCoder)
    image = torch.randint(0, 256, (1, 256, 256, 3), dtype=torch.uint8)
    photo = from_array(image[0].numpy())
    own = looks(photo, trained.preview.paint)
    assert isinstance(served.looks, DrawnLooks) and served.faithful is not None
    f, w, *shown = LooksGraph(served.looks, served.preview, *served.faithful[:2])(image)
    render = generator.synthesis.fine(f, w)
    painted = painter(generator.synthesis.features(*shown), shown[1][:, -7:], F.avg_pool2d(render, 4))
    both = painter.retouch(render, painted)
    for coder, expected, theirs, picture in (
        (served, (f, w), tuple(shown), both),
        (trained, own, None, generator.synthesis.fine(*own)),
    ):
        code = coder(photo, IDENTITY[None])
        torch.testing.assert_close((code.f, code.w), expected, rtol=0, atol=1e-4)  # the files are in float16
        torch.testing.assert_close(code.faithful, theirs, rtol=0, atol=1e-4)
        torch.testing.assert_close(coder.picture(code), picture, rtol=0, atol=0.01)
        assert code.w_coarse is not None and code.w_coarse.shape == (1, 4, 512)
        assert all(file.exists() for file in coder.files)


def test_without_looks_the_encoder_is_what_ships(generator: Generator, files: Path) -> None:
    assert not any(files.iterdir())
    assert shipped(generator) == ["the encoder of ffhq"]


def test_looks_without_a_coarse_look_give_no_coarse_styles(
    generator: Generator, networks: tuple[TwoLooks, ShortHead], tmp_path: Path
) -> None:
    looks, head = networks
    both = torch.nn.ModuleDict({"first": looks.first, "second": looks.second})
    for name in ("f_mean", "f_std", "w_mean", "w_std"):
        both.register_buffer(name, getattr(looks, name))
    write_parts(both, tmp_path, "looks")
    write_parts(head, tmp_path, "head")
    assert LooksCoder.of_folder(generator, tmp_path).coarse is None
