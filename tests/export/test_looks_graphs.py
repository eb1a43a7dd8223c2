"""Codes, coarse styles, edits that move ``f``, previews and pictures: what the graphs compute, also of odd numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.functional import avg_pool2d

from export.serve.exporters import to_onnx
from export.serve.graph import Graph
from export.serve.looks import (
    LooksGraph,
    MoveGraph,
    PictureGraph,
    PreviewGraph,
    StylesGraph,
    looks_graphs,
    moves_f,
    usable,
)
from export.serve.repository import ensembles
from export.serve.triton_config import ServedModel, Tensor
from networks.drawn_looks import DrawnLooks
from networks.encoder import Encoder
from networks.generator_file import Generator
from networks.looks import CoarseStyles, TwoLooks
from networks.mapping import MappingNetwork
from networks.mobilestylegan import MobileStyleGAN
from networks.picture_head import PictureHead
from networks.short_head import ShortHead
from networks.similarity import IDENTITY, move

TURNED = torch.tensor([[0.8, -0.3, 0.1], [0.3, 0.8, -0.05]])
WRONG = [float("nan"), float("inf"), -float("inf"), 0.0, 1e30, 2e3]


@pytest.fixture(scope="module")
def synthesis() -> MobileStyleGAN:
    torch.manual_seed(0)
    return MobileStyleGAN().eval().requires_grad_(requires_grad=False)


def edit(synthesis: MobileStyleGAN, transform: torch.Tensor, strengths: list[float]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    w = torch.randn(16, 512, generator=rng)
    return {
        "f": synthesis.coarse(w[None, :4], cut=16)[0],
        "w_m_plus": w[4:],
        "w_coarse": w[:4],
        "transform": transform,
        "direction": torch.randn(16, 512, generator=rng),
        "strengths": torch.tensor(strengths),
    }


@torch.no_grad()
def test_an_edit_of_an_aligned_face_is_the_edit_of_all_styles(synthesis: MobileStyleGAN) -> None:
    feed = edit(synthesis, IDENTITY, [-1.0, 0.0, 2.0])
    f, w = MoveGraph(synthesis, cut=16)(*feed.values())
    torch.testing.assert_close(f[1], feed["f"], atol=1e-5, rtol=0)
    assert torch.equal(w[1], feed["w_m_plus"])
    for number, strength in enumerate((-1.0, 0.0, 2.0)):
        moved = feed["w_coarse"] + strength * feed["direction"][:4]
        torch.testing.assert_close(f[number], synthesis.coarse(moved[None], cut=16)[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(w[number], feed["w_m_plus"] + strength * feed["direction"][4:])


@torch.no_grad()
def test_the_change_of_f_lies_where_the_face_is(synthesis: MobileStyleGAN) -> None:
    still, turned = edit(synthesis, IDENTITY, [2.0]), edit(synthesis, TURNED, [2.0])
    graph = MoveGraph(synthesis, cut=16)
    change = graph(*still.values())[0] - still["f"]
    expected = turned["f"] + move(change, TURNED[None])
    torch.testing.assert_close(graph(*turned.values())[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_a_coarse_step_f_stays(synthesis: MobileStyleGAN) -> None:
    feed = edit(synthesis, TURNED, [1.0, 3.0])
    feed["direction"][:4] = 0
    feed["w_coarse"] = torch.zeros(4, 512)
    f, _ = MoveGraph(synthesis, cut=16)(*feed.values())
    torch.testing.assert_close(f, feed["f"].expand_as(f), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_coarse_styles_are_those_of_the_training() -> None:
    torch.manual_seed(2)
    looks = TwoLooks().eval()
    image = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    photo = image.permute(0, 3, 1, 2).float() / 127.5 - 1
    found = StylesGraph(CoarseStyles.of(looks))(image, TURNED.expand(2, 2, 3))
    torch.testing.assert_close(found, looks.look_at_face(photo, TURNED.expand(2, 2, 3)))


@torch.no_grad()
def test_a_preview_is_what_the_short_head_paints(synthesis: MobileStyleGAN) -> None:
    torch.manual_seed(1)
    head = ShortHead().eval()
    feed = edit(synthesis, IDENTITY, [0.0])
    f, w = feed["f"][None], feed["w_m_plus"][None]
    image = PreviewGraph(synthesis, head)(f, w)
    assert image.shape == (1, 256, 256, 3)
    expected = ((head(synthesis.features(f, w), w[:, -7:]).clamp(-1, 1) + 1) * 127.5).round()
    assert torch.equal(image, expected.to(torch.uint8).permute(0, 2, 3, 1))


@torch.no_grad()
def test_a_picture_is_the_faithful_code_with_the_detail_of_the_other(synthesis: MobileStyleGAN) -> None:
    torch.manual_seed(1)
    head = PictureHead().eval()
    torch.nn.init.normal_(head.retouch.correct.weight, std=0.1)
    one, two = edit(synthesis, IDENTITY, [0.0]), edit(synthesis, TURNED, [0.0])
    code, faithful = (one["f"][None], one["w_m_plus"][None]), (-two["f"][None], 2 * two["w_m_plus"][None])
    image = PictureGraph(synthesis, head)(*code, *faithful)
    assert image.shape == (1, 1024, 1024, 3)
    render = synthesis.fine(*code)
    painted = head(synthesis.features(*faithful), faithful[1][:, -7:], avg_pool2d(render, 4))
    expected = ((head.retouch(render, painted).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(image, expected.permute(0, 2, 3, 1))


@torch.no_grad()
def test_the_faithful_code_is_that_of_its_training(synthesis: MobileStyleGAN) -> None:
    torch.manual_seed(3)
    looks, head = TwoLooks().eval(), ShortHead().eval()
    others = DrawnLooks(TwoLooks().eval(), Encoder(cut=16).eval())
    image = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    photo = image.permute(0, 3, 1, 2).float() / 127.5 - 1
    first = looks.look(photo)
    f, w = looks.denormalise_f(first[0]), looks.denormalise_w(first[1])
    painted = head(synthesis.features(f, w), w[:, -7:]).clamp(-1.5, 1.5)
    expected = looks.look_again(photo, painted, *first)
    preview = PreviewGraph(synthesis, ShortHead().eval())
    found = LooksGraph(others, preview, looks, PreviewGraph(synthesis, head))(image)
    torch.testing.assert_close(found[2], looks.denormalise_f(expected[0]))
    torch.testing.assert_close(found[3], looks.denormalise_w(expected[1]))
    torch.testing.assert_close(found[:2], others(photo, preview.paint))


@pytest.mark.parametrize("number", WRONG)
def test_a_transform_that_no_face_has_is_the_identity(number: float) -> None:
    wrong = torch.full((2, 3), number)
    found = usable(torch.stack([wrong, TURNED]))
    assert torch.equal(found[0], IDENTITY)
    assert torch.equal(found[1], TURNED)


@pytest.mark.parametrize("number", [*WRONG, 999.0, 0.5])
def test_no_transform_reads_outside_of_a_map(synthesis: MobileStyleGAN, tmp_path_factory, number: float) -> None:
    path = exported(synthesis, tmp_path_factory)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = edit(synthesis, torch.full((2, 3), number), [1.0])
    f, w = session.run(None, {name: value.numpy() for name, value in feed.items()})
    assert np.isfinite(f).all()
    with torch.no_grad():
        expected = MoveGraph(synthesis, cut=16)(*feed.values())
    if number != 999.0:  # so far away, rounding decides what is read
        np.testing.assert_allclose(f, expected[0], atol=1e-4)
    np.testing.assert_allclose(w, expected[1], atol=1e-5)


_EXPORTED: list[Path] = []


def exported(synthesis: MobileStyleGAN, factory: pytest.TempPathFactory) -> Path:
    if not _EXPORTED:
        # A copy: the exporter would take the module's own constant for this input.
        feed = edit(synthesis, IDENTITY.clone(), [1.0, 2.0, 3.0])
        dynamic = {name: {0: "strengths"} for name in ("strengths", "f_batch", "w_m_plus_batch")}
        graph = Graph(
            name="shift", build=lambda: MoveGraph(synthesis, cut=16), inputs=feed,
            outputs=("f_batch", "w_m_plus_batch"), weights=(), batched=False, dynamic=dynamic,
        )  # fmt: skip
        target = factory.mktemp("exported") / "shift.onnx"
        to_onnx(graph, graph.build().eval(), target)
        _EXPORTED.append(target)
    return _EXPORTED[0]


def served(name: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> ServedModel:
    def tensors(named: dict[str, tuple[int, ...]]) -> tuple[Tensor, ...]:
        kind = {"image": "uint8"}
        return tuple(Tensor(name=n, dtype=kind.get(n, "float32"), dims=dims) for n, dims in named.items())

    return ServedModel(
        name=name, inputs=tensors(inputs), outputs=tensors(outputs), max_batch_size=8, parameters={}, backend="x"
    )


F, W, IMAGE = (512, 16, 16), (12, 512), (256, 256, 3)
CODE = {"f": F, "w_m_plus": W}
FAITHFUL = {f"faithful_{name}": dims for name, dims in CODE.items()}


def parts(*, styles: bool, looks: bool = False) -> dict[str, ServedModel]:
    found = [
        served("d_fine", CODE, {"image": (1024, 1024, 3)}),
        served("d_encoder", {"image": IMAGE}, {"f": F}),
        served("d_detail", {"image": IMAGE}, {"w_m_plus": W}),
        served("d_shift", {**CODE, "strengths": (-1,)}, {"f_batch": (-1, *F), "w_m_plus_batch": (-1, *W)}),
    ]
    if looks:
        found.append(served("d_looks", {"image": IMAGE}, CODE | FAITHFUL))
        found.append(served("d_picture", CODE | FAITHFUL, {"image": (1024, 1024, 3)}))
    if styles:
        found.append(served("d_styles", {"image": IMAGE, "transform": (2, 3)}, {"w_coarse": (4, 512)}))
    return {model.name: model for model in found}


@pytest.mark.parametrize("styles", [False, True])
def test_an_inversion_has_coarse_styles_where_they_are_served(*, styles: bool) -> None:
    invert, edited = ensembles("d", parts(styles=styles), parameters={})
    assert edited.name == "d_edit"
    assert [t.name for t in invert.inputs] == (["image", "transform"] if styles else ["image"])
    more = ["w_coarse"] if styles else []
    assert [t.name for t in invert.outputs] == ["f", "w_m_plus", *more, "reconstruction"]
    assert len(invert.steps) == 3 + styles
    assert invert.steps[-1].inputs == {"f": "f", "w_m_plus": "w_m_plus"}


def test_the_two_looks_give_the_code_where_they_are_served() -> None:
    invert = ensembles("d", parts(styles=True, looks=True), parameters={})[0]
    plain = ensembles("d", parts(styles=True), parameters={})[0]
    assert invert.inputs == plain.inputs
    assert {t.name for t in invert.outputs} - {t.name for t in plain.outputs} == set(FAITHFUL)
    assert [step.model for step in plain.steps] == ["d_encoder", "d_detail", "d_styles", "d_fine"]
    assert [step.model for step in invert.steps] == ["d_looks", "d_styles", "d_picture"]
    assert invert.steps[0].outputs == {name: name for name in CODE | FAITHFUL}
    # The reconstruction is the picture of both codes.
    assert invert.steps[-1].inputs == {name: name for name in CODE | FAITHFUL}


@pytest.mark.parametrize("missing", ["encoder", "detail"])
def test_without_what_gives_codes_there_is_no_inversion(missing: str) -> None:
    models = parts(styles=True)
    del models[f"d_{missing}"]
    assert [model.name for model in ensembles("d", models, parameters={})] == ["d_edit"]


def test_a_domain_without_a_coarse_look_has_none_of_their_graphs(synthesis: MobileStyleGAN) -> None:
    assert not moves_f("no_such_domain", 16)
    generator = Generator(mapping=MappingNetwork(depth=2), synthesis=synthesis, fingerprint="0")
    assert looks_graphs("no_such_domain", "no_such_domain", 16, synthesis, lambda: generator) == []
