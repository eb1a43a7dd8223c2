from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.training.looks.faces import FacesError, read_faces
from networks.close_ups import ffhq_square
from networks.similarity import IDENTITY

# An upright face in the middle: eyes, nose, corners of the mouth.
POINTS = [(0.4, 0.45), (0.6, 0.45), (0.5, 0.55), (0.42, 0.65), (0.58, 0.65)]


def picture(seed: int = 0, side: int = 96) -> Image.Image:
    smooth = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(smooth).resize((side, side), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def landmarks(names: list[str]) -> str:
    text = io.StringIO()
    flat = [f"{v}" for point in POINTS for v in point]
    csv.writer(text).writerows([["file", *"abcdefghij"], *([name, *flat] for name in names)])
    return text.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "faces.zip"
    names = [f"{n:02d}.png" for n in range(25)]
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("landmarks.csv", landmarks(names))
        for n, name in enumerate(names):
            z.writestr(name, png(picture(n)))
    return path


def test_the_aligned_square_follows_ffhqs_rule() -> None:
    theta = ffhq_square(torch.tensor([POINTS]))[0]
    # Eyes 0.2 apart, mouth 0.2 below: the side is 4 times the one, which is more than 3.6 times the other.
    assert torch.allclose(theta[:, :2], 0.8 * torch.eye(2), atol=1e-6)
    # Its middle lies a tenth of the way from eyes to mouth: (0.5, 0.47), in [-1, 1].
    assert torch.allclose(theta[:, 2], torch.tensor([0.0, -0.06]), atol=1e-6)


def test_the_aligned_square_turns_with_the_face() -> None:
    points = torch.tensor([POINTS]) - 0.5
    angle = torch.tensor(0.4)
    c, s = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
    theta = ffhq_square(points @ turn.T + 0.5)[0]
    assert torch.allclose(theta[:, :2], 0.8 * turn, atol=1e-5)


def test_a_tenth_is_held_out(archive: Path) -> None:
    faces = read_faces(archive)
    assert faces.heldout.tolist() == [0, 10, 20]
    assert len(faces.train) == 22
    assert not set(faces.heldout.tolist()) & set(faces.train.tolist())


def test_views_show_the_aligned_face(archive: Path) -> None:
    faces = read_faces(archive)
    view, reach = faces.views(torch.tensor([3]), IDENTITY[None], torch.tensor([False]))
    assert (view.shape, reach.shape) == ((1, 3, 256, 256), (1, 1, 256, 256))
    assert reach.all()  # the square lies inside the picture
    box = (0.1 * 96, 0.07 * 96, 0.9 * 96, 0.87 * 96)
    expected = np.asarray(picture(3).resize((256, 256), Image.Resampling.BICUBIC, box=box), np.float32) / 127.5 - 1
    assert np.abs(view[0].permute(1, 2, 0).numpy() - expected).mean() < 0.02


def test_a_mirrored_view_is_the_mirror_image_of_a_symmetric_face(archive: Path) -> None:
    faces = read_faces(archive)
    both, _ = faces.views(torch.tensor([3, 3]), IDENTITY.expand(2, -1, -1), torch.tensor([False, True]))
    assert torch.allclose(both[1], both[0].flip(2), atol=1e-4)


def test_the_mask_ends_with_the_picture(archive: Path) -> None:
    faces = read_faces(archive)
    far = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    _, reach = faces.views(torch.tensor([3]), far, torch.tensor([False]))
    assert 0.3 < float(reach.mean()) < 0.5
    assert reach[0, 0, 128, 128] == 1
    assert reach[0, 0, 0, 0] == 0


def test_loaded_pictures_give_the_same_views(archive: Path) -> None:
    faces, numbers = read_faces(archive), torch.tensor([1, 4])
    args = numbers, IDENTITY.expand(2, -1, -1), torch.tensor([True, False])
    before = faces.views(*args)[0]
    faces.load(torch.device("cpu"))
    assert torch.equal(faces.views(*args)[0], before)


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacesError, match=r"no landmarks\.csv"):
        read_faces(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(FacesError, match="neither a folder nor a zip"):
        read_faces(tmp_path / "x.zip")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "landmarks.csv").write_text("file,x\n1.png,2\n")
    with pytest.raises(FacesError, match="ten numbers"):
        read_faces(folder)
    (folder / "landmarks.csv").write_text(landmarks(["wide.png", "gone.png"]))
    picture().resize((40, 30)).save(folder / "wide.png")
    faces = read_faces(folder)
    with pytest.raises(FacesError, match="not square"):
        faces.picture(0)
    with pytest.raises(FacesError, match=r"cannot read `gone\.png`"):
        faces.picture(1)
