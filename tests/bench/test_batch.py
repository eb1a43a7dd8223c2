"""``bench batch``: its numbers, tables and errors; a measurement itself needs a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from assets.paths import REPOSITORY
from bench.__main__ import main
from bench.batch import BareEdit, BatchError, Way, batch, photos, table


def test_the_ratio_is_batch_over_bare() -> None:
    row = Way("one process", 2, bare=(100.0, 50.0, 80.0), batch=(90.0, 50.0, 60.0))
    assert row.ratios == [0.9, 1.0, 0.75]


def test_the_tables_have_medians_and_peaks() -> None:
    rows = [Way("one process", 1, (100.0, 50.0, 80.0), (90.0, 50.0, 60.0))]
    text = table(rows, [(50, 100 * 2**20), (500, 101 * 2**20)], "2 CPU cores.")
    assert "| one process | 1 | **0.90** | 0.75..1.00 | 60.0 | 80.0 |" in text
    assert "| 50 | 100 MiB |\n| 500 | 101 MiB |" in text
    assert text.endswith("\n\n2 CPU cores.\n")
    assert "peak memory" not in table(rows, [], "")


def test_the_photos_are_whole_and_differ(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 3)
    made = sorted(folder.iterdir())
    assert len({path.read_bytes() for path in made}) == len(made) == 3
    with Image.open(made[0]) as photo:
        assert photo.size == (512, 512)


@pytest.mark.skipif(
    not (REPOSITORY / "ffhq_fine" / "1" / "model.onnx").exists(), reason="the graphs are not built: make invert"
)
def test_the_graphs_of_the_repository_take_the_requests() -> None:
    BareEdit()()


def test_a_batch_that_fails_is_reported(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 1)
    with pytest.raises(BatchError, match=r"exited with 3: .*no Triton server answers"):
        batch("127.0.0.1:9", folder, tmp_path, "--patience", "1", "--timeout", "1")


@pytest.mark.parametrize("arguments", [["--photos", "1"], ["--rounds", "0"], ["--write", "/dev/null"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", *arguments]) == 1
    assert capsys.readouterr().err.startswith("error: ")
