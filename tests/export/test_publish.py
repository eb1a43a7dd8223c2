"""``python -m export publish``: from a training's folder to the files that are served."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from assets.paths import coarse_look_file
from export import publish
from export.__main__ import main
from export.training.looks.weights import read_parts, start_from, start_states, write_parts
from networks.looks import CoarseStyles, TwoLooks
from networks.looks_file import load_coarse_styles, load_looks, load_short_head
from networks.mobilestylegan import MobileStyleGAN
from networks.short_head import ShortHead
from networks.weights_file import halved, read_metadata

GENERATOR = "0123456789abcdef"
FILES = ["coarse_look16.safetensors", "looks16.safetensors", "short_head16.safetensors"]


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        shape = MobileStyleGAN()
    monkeypatch.setattr(publish, "generator_metadata", lambda _: {"fingerprint": GENERATOR})
    monkeypatch.setattr(publish, "read_shape", lambda _: shape)


@pytest.fixture(scope="module")
def looks() -> TwoLooks:
    torch.manual_seed(0)
    return TwoLooks()


@pytest.fixture(scope="module")
def head() -> ShortHead:
    torch.manual_seed(1)
    return ShortHead()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, looks: TwoLooks, head: ShortHead) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_parts(looks, folder, "looks")
    write_parts(head, folder, "head")
    return folder


def test_three_files_hold_what_was_trained(
    trained: Path, tmp_path: Path, looks: TwoLooks, head: ShortHead, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(trained), "--weights", str(tmp_path), "--training", "an hour"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert "looks16.safetensors: 47.5 MB; describe it in `looks16.md`" in capsys.readouterr().out
    for name in FILES:
        metadata = read_metadata(tmp_path / name)
        assert (metadata["generator"], metadata["training"]) == (GENERATOR, "an hour")
    coarse, both, short = (tmp_path / name for name in FILES)
    for found, expected in (
        (load_coarse_styles(coarse), CoarseStyles.of(looks)), (load_looks(both), looks), (load_short_head(short), head),
    ):  # fmt: skip
        wanted = halved(expected)
        assert all(torch.equal(value, wanted[name]) for name, value in halved(found).items())


def test_some_of_the_files_can_be_left_out(trained: Path, tmp_path: Path) -> None:
    assert main(["publish", str(trained), "--weights", str(tmp_path), "--only", "coarse_look", "short_head"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILES[0], FILES[2]]


def test_looks_for_the_picture_alone_need_no_coarse_look(trained: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    looks = {name: value for name, value in read_parts(trained, "looks").items() if not name.startswith("coarse_look.")}
    folder.mkdir()
    save_file(looks, folder / "looks-0.safetensors")
    (folder / "head-0.safetensors").symlink_to(trained / "head-0.safetensors")
    faithful = ["faithful_looks", "faithful_head"]
    assert main(["publish", str(folder), "--weights", str(target), "--only", *faithful]) == 0
    both, head = (target / f"{name}16.safetensors" for name in faithful)
    torch.testing.assert_close(load_looks(both).f_mean, looks["f_mean"])
    assert load_short_head(head) is not None
    assert main(["publish", str(folder), "--weights", str(target)]) == 1


@pytest.mark.parametrize("missing", ["looks", "head"])
def test_nothing_is_written_where_something_is_missing(
    trained: Path, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    for path in trained.iterdir():
        if not path.name.startswith(missing):
            (folder / path.name).symlink_to(path)
    assert main(["publish", str(folder), "--weights", str(target)]) == 1
    assert f"no weights in `{folder}`: expected `{missing}-0.safetensors`" in capsys.readouterr().err
    assert not target.exists()


def test_weights_of_another_shape_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    for path in trained.glob("looks-*"):
        (folder / path.name).symlink_to(path)
    write_parts(ShortHead(width=48), folder, "head")
    assert main(["publish", str(folder), "--weights", str(target)]) == 1
    assert "the weights to start from do not fit" in capsys.readouterr().err
    assert not target.exists()


def test_a_run_starts_from_what_ships() -> None:
    states = start_states(None, "ffhq")
    assert states is not None
    looks, head = TwoLooks(), ShortHead()
    assert start_from(looks, states[0]) == []
    assert start_from(head, states[1]) == []
    shipped = load_coarse_styles(coarse_look_file("ffhq", 16)).state_dict()
    for name, value in CoarseStyles.of(looks).state_dict().items():
        torch.testing.assert_close(value, shipped[name])
    assert start_states(None, "cats") is None
    assert start_states(Path("none"), "ffhq") is None
