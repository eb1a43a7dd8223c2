"""Inversion files with what a refinement leaves."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from safetensors.numpy import save

from client import Inversion, InversionError, Metrics, ParameterError, Refinement, RefineOptions, Terms
from client.files.inversion import REFINED_SCHEMA, SCHEMA
from client.files.record import REASONS
from protocol.methods import PRESETS
from protocol.terms import TERMS
from tests.client.fakes import check_sentence, unhurried
from tests.client.inversions import made, parts, refinement, refused, target


def test_the_schema_follows_the_content(tmp_path):
    for schema, inversion in (
        (SCHEMA, made()),
        (REFINED_SCHEMA, made(target=target())),
        (REFINED_SCHEMA, made(refinement=refinement())),
    ):
        assert parts(inversion)[1]["schema"] == schema
    found, texts = parts(made(target=target(), refinement=refinement()))
    (tmp_path / "it").write_bytes(save(found, metadata={**texts, "schema": SCHEMA}))
    first = Inversion.load(tmp_path / "it")
    assert (first.target, first.refinement) == (None, None)


FINITE = st.floats(2**-9, 1000, width=32)


METRICS = st.builds(
    Metrics,
    stlpips_alex=FINITE,
    psnr_256=FINITE,
    psnr=FINITE,
    identity=st.none() | FINITE,
    landmarks=st.none() | FINITE,
    face=st.none() | st.booleans(),
)


OPTIONS = st.builds(
    RefineOptions,
    preset=st.sampled_from(sorted(PRESETS)),
    steps=st.none() | st.integers(1, 10_000),
    seconds=st.none() | FINITE,
    target=st.none() | st.floats(0.001, 10),
    weights=st.dictionaries(st.sampled_from(TERMS), FINITE),
    checkpoint_every=st.integers(1, 10_000),
)


REFINEMENTS = st.builds(
    Refinement,
    options=OPTIONS,
    step=st.integers(0, 10_000),
    seconds=FINITE,
    terms=st.none() | st.builds(Terms, FINITE, FINITE, FINITE, FINITE, FINITE),
    optimiser=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
        arrays(np.float32, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=FINITE),
        max_size=4,
    ),
    reason=st.none() | st.sampled_from(REASONS),
    metrics=st.none() | METRICS,
)


@unhurried
@given(before=REFINEMENTS)
def test_refinements_round_trip(tmp_path_factory, before):
    path = tmp_path_factory.getbasetemp() / "refined.safetensors"
    small = np.zeros((512, 8, 8), np.float32)
    made(f=small, f_o=small, cut=8, target=target(), refinement=before).save(path)
    inversion = Inversion.load(path)
    after = inversion.refinement
    for name in ("options", "step", "steps", "seconds", "terms", "reason", "metrics", "resumable", "start_kept"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.optimiser.keys() == before.optimiser.keys()
    for name, value in before.optimiser.items():
        np.testing.assert_array_equal(after.optimiser[name], value)
        assert after.optimiser[name].shape == value.shape
    assert inversion.target == target()
    assert inversion.target_pixels().shape == (32, 32, 3)


def test_how_often_one_looks_is_not_kept():
    kept = Refinement.decode(refinement(options=RefineOptions(preview_every=3)).encode(), {})
    assert kept.options.preview_every is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@unhurried
@given(data=st.data())
def test_any_account_is_a_refinement_or_refused(data):
    account = json.loads(refinement().encode())
    part = data.draw(st.sampled_from([account, account["options"], account["terms"]]))
    part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=5))] = data.draw(JSON)
    text = data.draw(st.sampled_from([json.dumps(account), json.dumps(part)]))
    try:
        kept = Refinement.decode(text, {})
    except ParameterError as problem:
        check_sentence(problem)
    else:
        assert Refinement.decode(kept.encode(), {}).encode() == kept.encode()


@pytest.mark.parametrize("value", [{"00\x1f\b\U0001b2fc": [], "0000\x1f": None}, [[0]] * 30, {}, "1:", None, True])
def test_a_value_of_another_type_is_refused_in_one_sentence(value):
    options = {**json.loads(refinement().encode())["options"], "checkpoint_every": value}
    with pytest.raises(ParameterError) as problem:
        Refinement.decode(account(options=options), {})
    check_sentence(problem.value)


def rewritten_refined(path, *, tensors=None, **metadata):
    found, texts = parts(made(target=target(), refinement=refinement()))
    path.write_bytes(save({**found, **(tensors or {})}, metadata={**texts, **metadata}))
    return refused(path)


def account(**changes: object) -> str:
    return json.dumps({**json.loads(refinement().encode()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        account(step="75"),
        account(step=True),
        account(step=-1),
        account(step=301),
        account(step=10**400),
        account(seconds=float("nan")),
        account(seconds=float("inf")),
        account(seconds=10**400),
        account(terms={"total": 1}),
        account(terms={"total": 1, "mse": 1, "perceptual": 1, "f": 1, "p_norm": None}),
        account(terms=[1, 2, 3, 4, 5]),
        account(terms={"total": 10**400, "mse": 1, "perceptual": 1, "f": 1, "p_norm": 1}),
        account(reason="because"),
        account(reason=["steps"]),
        account(metrics={"stlpips_alex": 1, "psnr_256": 2, "psnr": None}),
        account(metrics={"stlpips_alex": 1, "psnr_256": 2, "psnr": 3, "face": "yes"}),
        account(options={"preset": "nonsense"}),
        account(options={"preset": ["default"]}),
        account(options={"weights": {"mse": -1}}),
        account(options={"weights": {"nose": 1}}),
        account(options={"weights": [1]}),
        account(options={"steps": 0}),
        account(options={"seconds": 1e9}),
        account(options={"colour": "red"}),
        account(more=1),
    ],
    ids=lambda text: text[:10] + str(zlib.crc32(text.encode()) % 1000),
)
def test_accounts_must_be_right(tmp_path, text):
    assert "unreadable refinement" in rewritten_refined(tmp_path / "it", refinement=text)


def test_the_optimisers_tensors_are_checked(tmp_path):
    path = tmp_path / "it"
    for value, words in (
        (np.array([1, np.nan], np.float32), "not finite"),
        (np.array([1, np.inf], np.float32), "not finite"),
        (np.zeros(3), "float64"),
        (np.zeros(3, np.uint8), "uint8"),
    ):
        message = rewritten_refined(path, tensors={"optimiser.x": value})
        assert "optimiser.x" in message
        assert words in message
    for name in ("", "a b", "../x", "x" * 65, "é"):
        assert "invalid name" in rewritten_refined(path, tensors={f"optimiser.{name}": np.zeros(1, np.float32)})
    many = {f"optimiser.{number}": np.zeros(1, np.float32) for number in range(300)}
    assert "more than 64" in rewritten_refined(path, tensors=many)


def picture(mode: str = "RGB", size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        target()[:40],
        picture(kind="JPEG"),
        picture("L"),
        picture("RGBA"),
        picture(size=(32, 33)),
        picture(size=(8, 8)),
        picture(size=(5000, 5000)),
    ],
    ids=["empty", "text", "header", "jpeg", "grey", "alpha", "oblong", "small", "large"],
)
def test_targets_are_checked(tmp_path, data):
    stored = np.frombuffer(data, np.uint8)
    assert "arget" in rewritten_refined(tmp_path / "it", tensors={"target": stored})
    if data != target()[:40]:
        with pytest.raises(InversionError, match="square PNG"):
            made(target=data)


def test_a_damaged_target_is_refused_and_so_is_another_tensor(tmp_path):
    path = tmp_path / "it"
    assert "not a whole PNG" in rewritten_refined(path, tensors={"target": np.frombuffer(target()[:-400], np.uint8)})
    for stored in (np.zeros((2, 2), np.uint8), np.zeros(5, np.float32), np.zeros(17 * 2**20, np.uint8)):
        assert "bytes of a PNG" in rewritten_refined(path, tensors={"target": stored})
    with pytest.raises(InversionError, match="does not hold its photo"):
        made().target_pixels()


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "fast"},
        {"preset": ""},
        {"steps": 0},
        {"steps": 10_001},
        {"steps": 1.5},
        {"seconds": 0},
        {"seconds": 86_401},
        {"seconds": float("nan")},
        {"target": 0},
        {"target": 11},
        {"target": float("inf")},
        {"weights": {"nose": 1.0}},
        {"weights": {"mse": -1.0}},
        {"weights": {"mse": float("nan")}},
        {"weights": {"mse": 2e6}},
        {"checkpoint_every": 0},
        {"checkpoint_every": True},
        {"preview_every": -1},
    ],
    ids=str,
)
def test_options_are_checked(changes):
    with pytest.raises(ParameterError) as caught:
        RefineOptions(**changes)
    check_sentence(caught.value)
