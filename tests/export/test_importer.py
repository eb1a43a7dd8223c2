"""``python -m export import``: what it says while it works, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from export import importer
from export.__main__ import main
from tests.export.publishers import rosinality_file, stylegan2


def test_each_step_is_said_as_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rosinality_file(*stylegan2(), tmp_path / "some.pt")
    said: dict[str, str] = {}

    def exported(name: str) -> SimpleNamespace:
        return SimpleNamespace(run=lambda _: said.update({name: capsys.readouterr().out}))

    monkeypatch.setattr(importer.graphs, "run", exported("graphs").run)
    monkeypatch.setattr(importer.repository, "run", exported("repository").run)
    monkeypatch.setattr(importer, "generator_file", lambda domain: tmp_path / f"{domain}.safetensors")
    folders = [f"--{name}={tmp_path / name}" for name in ("weights", "directions")]
    assert main(["import", str(tmp_path / "some.pt"), "--domain=tiny", "--mapped=10000", *folders]) == 0
    steps = [line.removesuffix(" ...") for line in said["graphs"].splitlines() if line.endswith(" ...")]
    assert steps == [
        "reading some.pt",
        "drawing 8 samples of stylegan2 skip, 32 px, 8 styles",
        "mapping 10,000 latents for the statistics of W",
        "exporting the graphs, which takes minutes",
    ]


def test_the_built_in_domain_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(tmp_path / "some.pt"), "--domain=ffhq"]) == 2
    assert capsys.readouterr().err == (
        "error: domain `ffhq` holds the generator that ships with the project: pass another --domain\n"
    )
