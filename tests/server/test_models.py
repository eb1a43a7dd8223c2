"""Which models of a repository are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.paths import project_root
from server.errors import LaunchError
from server.models import linked, served

STEP = 'ensemble_scheduling {{ step [ {{ model_name: "{}" }} ] }}'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for name, step in (
        ("x_fine", ""),
        ("x_shift", ""),
        ("x_mapping", ""),
        ("x_coarse", ""),
        ("x_edit", "x_shift"),
        ("x_invert", "x_fine"),
        ("x_cut8_invert", "x_fine"),
        ("faces", ""),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(STEP.format(step) if step else "")
    return folder


def test_by_default_it_is_what_inverting_and_editing_need(repository: Path) -> None:
    assert served(repository, ["default"]) == ["faces", "x_coarse", "x_edit", "x_fine", "x_invert", "x_shift"]
    assert served(repository, ["default", "x_mapping"]) == [
        *("faces", "x_coarse", "x_edit", "x_fine", "x_invert", "x_mapping", "x_shift")
    ]
    assert served(repository, ["x_cut8_invert"]) == ["x_cut8_invert", "x_fine"]
    assert served(repository, ["x_mapping", "all"]) is None


def test_a_repository_of_other_models_is_served_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "add_one").mkdir()
    (tmp_path / "add_one/config.pbtxt").touch()
    assert served(tmp_path, ["default"]) is None


def test_the_projects_own_models() -> None:
    repository = project_root() / "model_repository"
    looks = (repository / "ffhq_looks").exists()
    coders = ["ffhq_looks", "ffhq_picture"] if looks else ["ffhq_detail", "ffhq_encoder"]
    assert served(repository, ["default"]) == sorted(
        [*coders, "faces", "ffhq_coarse", "ffhq_edit", "ffhq_fine", "ffhq_invert", "ffhq_shift", "ffhq_styles"]
    )


def test_a_model_that_is_not_there_is_refused(repository: Path) -> None:
    with pytest.raises(LaunchError, match=r"no model `y_fine` in `.*`: expected all, default or faces, x_coarse"):
        served(repository, ["default", "y_fine"])


def test_the_folder_of_links_is_made_once_for_each_choice(repository: Path, tmp_path: Path) -> None:
    first = linked(repository, ["x_fine", "x_shift"], tmp_path / "run")
    assert sorted(path.name for path in first.iterdir()) == ["x_fine", "x_shift"]
    assert (first / "x_fine" / "config.pbtxt").exists()
    assert linked(repository, ["x_fine", "x_shift"], tmp_path / "run") == first
    assert linked(repository, ["x_fine"], tmp_path / "run") != first
