"""Real faces to train on: pictures with five landmarks each, a tenth of them held out.

A set is a zip file or a folder of square pictures with ``landmarks.csv``: a header, then a row a picture with its file
name and ``x0 y0 .. x4 y4``, the landmarks (eye at the picture's left, other eye, nose, mouth corner left, other) as
shares of the side.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from networks.close_ups import ffhq_square
from networks.pixels import from_uint8
from networks.similarity import compose, resample

LANDMARKS = "landmarks.csv"
SIZE = 256
HELD_OUT = 10  # every tenth
# Side of the aligned square, as a share of the picture: closer zooms show less beyond the picture's border.
ZOOM = 0.75
ZOOMS = (0.6, 1.1)
RANGE = 2.0
MIRROR = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])


class FacesError(ValueError):
    """A set of faces cannot be read."""


class Faces:
    """One set.

    Attributes:
        name: name of the file or folder.
        train: int64 [n], numbers of the pictures to train on.
        heldout: int64 [m], of the others.
        squares: float32 [N, 2, 3], each picture's aligned square.
    """

    def __init__(self, name: str, read: Callable[[str], bytes], rows: Iterable[list[str]]) -> None:
        rows = [row for row in rows if row]
        if not rows:
            raise FacesError(f"no faces in `{name}`")
        try:
            landmarks = torch.tensor([[float(v) for v in row[1:11]] for row in rows]).view(-1, 5, 2)
        except (ValueError, RuntimeError) as exc:
            raise FacesError(f"`{name}`: {LANDMARKS} needs a file name and ten numbers a row") from exc
        self.name, self._read, self._files = name, read, [row[0] for row in rows]
        self._loaded: Tensor | None = None
        self.squares = ffhq_square(landmarks)
        numbers = torch.arange(len(rows))
        self.heldout, self.train = numbers[::HELD_OUT], numbers[numbers % HELD_OUT != 0]

    def picture(self, number: int) -> Tensor:
        """One picture, uint8 [3, S, S].

        Raises:
            FacesError: it is not a square picture.
        """
        file = self._files[number]
        try:
            with Image.open(io.BytesIO(self._read(file)), formats=("JPEG", "PNG", "WEBP")) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, KeyError, UnidentifiedImageError) as exc:
            raise FacesError(f"`{self.name}`: cannot read `{file}`") from exc
        if pixels.shape[0] != pixels.shape[1]:
            raise FacesError(f"`{self.name}`: `{file}` is {pixels.shape[1]} x {pixels.shape[0]}, not square")
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    def load(self, device: torch.device) -> None:
        """Keep all pictures on a device, decoded; they must be of one size."""
        with ThreadPoolExecutor() as pool:
            pictures = list(pool.map(self.picture, range(len(self._files))))
        self._loaded = torch.stack(pictures).to(device)

    def zooms(self, number: int) -> tuple[float, float]:
        """How large the face of a picture may be shown, 1 as in the aligned square."""
        side = float(self.squares[number, :, 0].norm())
        low = min(max(ZOOM * side, ZOOMS[0]), ZOOMS[1])
        return low, low * RANGE

    def views(self, numbers: Tensor, theta: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures, moved.

        Args:
            numbers: int64 [B], of pictures.
            theta: float32 [B, 2, 3], how the aligned faces are moved.
            mirrored: bool [B], whether left and right are exchanged.

        Returns:
            float32 [B, 3, 256, 256] in [-1, 1]; float32 [B, 1, 256, 256], 1 where the pictures reach.
        """
        if self._loaded is None:
            pixels = torch.stack([self.picture(int(number)) for number in numbers])
        else:
            pixels = self._loaded[numbers.to(self._loaded.device)]
        device = pixels.device
        flip = mirrored.to(device)
        image = from_uint8(pixels)
        image = torch.where(flip[:, None, None, None], image.flip(3), image)
        squares = self.squares[numbers].to(device)
        squares = torch.where(flip[:, None, None], squares * MIRROR.to(device), squares)
        places = compose(squares, theta.to(device))
        view = resample(image, places, (SIZE, SIZE), mode="bicubic").clamp(-1, 1)
        grid = F.affine_grid(places, [len(view), 3, SIZE, SIZE], align_corners=False)
        return view, (grid.abs().amax(dim=3)[:, None] <= 1).float()


def read_faces(path: Path) -> Faces:
    """A zip file or a folder that has landmarks.

    Raises:
        FacesError: it has none, or is neither.
    """
    if path.is_dir():
        table = path / LANDMARKS
        if not table.exists():
            raise FacesError(f"`{path}` has no {LANDMARKS}")
        text, read = table.read_text(), lambda file: (path / Path(file).name).read_bytes()
    else:
        try:
            archive = zipfile.ZipFile(path)
            text, read = archive.read(LANDMARKS).decode(), archive.read
        except (OSError, KeyError, zipfile.BadZipFile) as exc:
            raise FacesError(f"`{path}` is neither a folder nor a zip file with {LANDMARKS}") from exc
    return Faces(path.name, read, list(csv.reader(io.StringIO(text)))[1:])
