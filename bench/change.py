"""Edits in the whole photo, compared with simpler ways: ``python -m bench change``, by a running server.

Ways: ``render``, the generator's edited picture; ``sum``, the photo plus the difference of the edited and the plain
render, pasted with a hard edge; ``photo``, what users get (``client.change``). All are judged in the frame's square at
``SIDE`` pixels.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from assets.paths import ROOT
from bench import page
from bench.table import head, mean, row
from client import Inverter, Refined, RefineOptions
from client.atomic import write_all
from client.change.filters import grey
from client.change.paste import Paste
from client.files import direction as named
from client.files.photo import Photo
from client.frames.frame import Frame
from client.wire.defaults import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL
from export.directions.scorers import Scorer, Scores
from judges.faces import Face, Image8
from judges.identity import Identity, identity_cosine

MARK: Final = "change"
MARK_REFINED: Final = "change-refined"
SIDE: Final = 512
WAYS: Final = ("render", "sum", "photo")
SCORES: Final = {"age": "age", "smile": "smile", "gender": "male", "yaw": "yaw"}  # direction, and its score
STRENGTHS: Final = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)
_WIDER: Final = 1.2  # of the frame's side: the square in which its border is looked at
_BAND: Final = 0.12  # of the frame's side: the feather


@dataclass(frozen=True)
class Measured:
    """One edit of one photo, put together in one way.

    Attributes:
        identity: cosine of SFace embeddings to the photo; None without a face.
        effect: change of the direction's score; None without a face.
        landmarks: mean distance to the photo's landmarks, in eye distances; None without a face.
        edges: edges in the mouth's box, relative to the photo's or the render's, whichever has more.
        step: at the frame's border, in levels of 255.
        bend: mean square of the second difference across the border, of the result minus the photo.
    """

    way: str
    direction: str
    strength: float
    identity: float | None
    effect: float | None
    landmarks: float | None
    edges: float | None
    step: float
    bend: float


class Bench:
    """Measures edits of photos; ``seconds`` of each stage are kept.

    Args:
        inverter: connected to the server.
        steps: steps of refinement before each edit.
    """

    def __init__(self, inverter: Inverter, *, steps: int = 0) -> None:
        self._inverter, self._steps = inverter, steps
        self._scorer, self._identity = Scorer(), Identity()
        self.seconds: dict[str, list[float]] = {name: [] for name in ("find", "invert", "register", "paste")}

    def __call__(self, photo: Photo, directions: Sequence[str], strengths: Sequence[float]) -> Iterator[Measured]:
        """Yield each edit in each way."""
        began = time.perf_counter()
        (frame,) = self._inverter.frames(photo).frames
        self._spent("find", began)
        began = time.perf_counter()
        inversion = self._inverter.invert(photo, frame).inversion
        if self._steps:
            *_, last = self._inverter.refine(inversion, photo, RefineOptions(steps=self._steps))
            assert isinstance(last, Refined)
            inversion = last.inversion
        self._spent("invert", began)
        source = self._inverter.for_change(inversion, photo)  # what edits start from
        frame, plain = source.frame, self._inverter.render(source.editable)
        began = time.perf_counter()
        paste = Paste(photo, frame, plain, pose=source.pose)
        self._spent("register", began)
        square = photo.pixels(frame, len(plain))
        before, still = self._seen(square), self._seen(plain)
        for direction in directions:
            chosen = named.load(DEFAULT_DOMAIN, direction)
            for strength, turn in zip(strengths, chosen.turned(strengths), strict=True):
                (edited,) = self._inverter.edit(source, chosen.in_photo, [strength])
                began = time.perf_counter()
                whole = Photo(paste(edited, turn=turn, features=chosen.features), photo.name, "")
                self._spent("paste", began)
                added = (square.astype(np.int16) + edited - plain).clip(0, 255).astype(np.uint8)
                pictures = {"render": edited, "sum": added, "photo": whole.pixels(frame, len(plain))}
                for way in WAYS:
                    step, bend = seam(pasted(photo, frame, added) if way == "sum" else whole, photo, frame)
                    yield self._measured(
                        (way, direction, strength), pictures, before, still if way == "render" else before, (step, bend)
                    )

    def _spent(self, stage: str, began: float) -> None:
        self.seconds[stage].append(time.perf_counter() - began)

    def _seen(self, picture: Image8) -> tuple[Image8, Face | None, Scores | None]:
        small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        return small, self._scorer.detector.portrait(small), self._scorer(small)

    def _measured(
        self,
        what: tuple[str, str, float],
        pictures: dict[str, Image8],
        before: tuple[Image8, Face | None, Scores | None],
        start: tuple[Image8, Face | None, Scores | None],
        border: tuple[float, float],
    ) -> Measured:
        way, direction, _ = what
        picture, face, scores = self._seen(pictures[way])
        photo, own, _ = before
        if face is None or own is None or scores is None or start[2] is None:
            return Measured(*what, None, None, None, None, *border)
        score = SCORES[direction]
        edited = np.asarray(Image.fromarray(pictures["render"]).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        most = max(mouth_edges(photo, own), mouth_edges(edited, face))
        return Measured(
            *what,
            identity_cosine(self._identity(photo, own), self._identity(picture, face)),
            getattr(scores, score) - getattr(start[2], score),
            float(np.linalg.norm(face.landmarks - own.landmarks, axis=1).mean()) / own.eye_distance,
            mouth_edges(picture, face) / most,
            *border,
        )


def pasted(photo: Photo, frame: Frame, square: Image8) -> Photo:
    """Return a photo with a square in its frame, with a hard edge."""
    width, height = photo.size
    matrix = frame.matrix * len(square)
    data = (*matrix[0].tolist(), *matrix[1].tolist())
    how = (photo.size, Image.Transform.AFFINE, data)
    inside = Image.new("L", (len(square), len(square)), 255).transform(*how)
    moved = Image.fromarray(square).transform(*how, Image.Resampling.BICUBIC)
    assert moved.size == (width, height)
    return Photo(Image.composite(moved, photo.image, inside), photo.name, "")


def mouth_edges(picture: Image8, face: Face) -> float:
    """Return the mean slope of luma in the box of a face's mouth, in levels a pixel."""
    left, right = face.landmarks[3], face.landmarks[4]
    middle, reach = (left + right) / 2, face.eye_distance
    x, y = (middle - reach * np.array([0.6, 0.4])).clip(0).astype(int)
    box = grey(picture[y : y + int(0.8 * reach) + 2, x : x + int(1.2 * reach) + 2].astype(np.float32))
    return float(np.hypot(*np.gradient(box)).mean())


def seam(result: Photo, photo: Photo, frame: Frame) -> tuple[float, float]:
    """Return the mean step across a frame's border and the energy of the second difference there, see `Measured`."""
    middle = frame.middle
    x, y = (middle + _WIDER * (np.array([frame.x, frame.y]) - middle)).tolist()
    wider = Frame("aligned", x, y, frame.dx * _WIDER, frame.dy * _WIDER)
    now, before = (grey(each.pixels(wider, SIDE).astype(np.float32)) for each in (result, photo))
    difference = now - before
    places = wider.to_photo(np.stack(np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2), axis=-1).reshape(-1, 2))
    there = ((places >= 0) & (places <= photo.size)).all(axis=1).reshape(SIDE, SIDE)
    steps, bends = [], []
    edge, inner = (round(SIDE * (0.5 - share / _WIDER)) for share in (0.5, 0.5 - _BAND))
    for turned in range(4):
        field, inside = np.rot90(difference, turned), np.rot90(there, turned)
        # The rows from outside the upper border to the inner end of the feather.
        lines, seen = field[edge - 4 : inner, inner:-inner], inside[edge - 4 : inner, inner:-inner].all(axis=0)
        steps.append(np.abs(np.diff(lines, axis=0)).max(axis=0)[seen])
        bends.append(np.square(np.diff(lines, n=2, axis=0)).mean(axis=0)[seen])
    found: list[NDArray[np.float32]] = [np.concatenate(each) for each in (steps, bends)]
    return tuple(float(each.mean()) if each.size else 0.0 for each in found)  # type: ignore[return-value]


def markdown(results: Sequence[Measured], seconds: dict[str, list[float]], how: str) -> str:
    """Return the tables; ``how`` says what was inverted, and how."""
    titles = ("edit", "way", "identity", "effect -3, -2, -1, +1, +2, +3", "landmarks", "mouth's edges", "step", "bend")
    lines = [f"{how}; identity, landmarks, edges and seam at strengths of +-2.", ""]
    lines += head(titles)
    for direction in dict.fromkeys(each.direction for each in results):
        for way in WAYS:
            own = [each for each in results if (each.direction, each.way) == (direction, way)]
            at = [each for each in own if abs(each.strength) == 2] or own
            form = "+.1f" if direction == "age" else "+.2f"
            effects = [mean((e.effect for e in own if e.strength == s), form) for s in STRENGTHS]
            known = (
                mean((each.identity for each in at), ".2f"), ", ".join(effects),
                mean((each.landmarks for each in at), ".3f"), mean((each.edges for each in at), ".2f"),
            )  # fmt: skip
            border = ("-", "-") if way == "render" else (_mean(at, "step"), _mean(at, "bend"))
            lines.append(row((direction, way, *known, *border)))
    lines += ["", *head([f"seconds: {name}" for name in seconds])]
    lines.append(row(mean(values, ".2f") for values in seconds.values()))
    return "\n".join(lines)


def _mean(results: Sequence[Measured], name: str) -> str:
    return mean((getattr(each, name) for each in results), ".2f")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench change``."""
    url = os.environ.get("UNALIGNED_URL") or DEFAULT_URL
    parser.add_argument("--url", default=url, help="gRPC endpoint of Triton (default: $UNALIGNED_URL or %(default)s)")
    url = os.environ.get("UNALIGNED_REFINE_URL") or DEFAULT_REFINE_URL
    parser.add_argument(
        "--refine-url", default=url, help="address of the side-car (default: $UNALIGNED_REFINE_URL or %(default)s)"
    )
    photos = ROOT.parent / "shared/photos"
    parser.add_argument("--photos", type=Path, default=photos, help="a folder of photos (default: ../shared/photos)")
    parser.add_argument("--count", type=int, default=3, help="photos to measure (default: 3)")
    parser.add_argument(
        "--directions", nargs="+", default=list(SCORES), choices=list(SCORES), help="directions (default: all)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="steps of refinement by a side-car before the edits (default: one pass only)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for change.md (default: out)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables between the marks in a file")


def run(args: argparse.Namespace) -> None:
    """Measure, and print and write the tables."""
    mark = MARK_REFINED if args.steps else MARK
    page.check(args.write, mark)
    paths = sorted(path for path in args.photos.iterdir() if path.is_file())[: args.count]
    if not paths:
        raise ValueError(f"no photo in {args.photos}")
    with Inverter(args.url, refine_url=args.refine_url) as inverter:
        bench, results = Bench(inverter, steps=args.steps), []
        total = len(paths) * len(args.directions) * len(STRENGTHS) * len(WAYS)
        with tqdm(total=total, desc="edits", disable=None) as bar:
            for path in paths:
                for found in bench(Photo.open(path), args.directions, STRENGTHS):
                    results.append(found)
                    bar.update()
    how = f"refined by {args.steps} steps" if args.steps else "inverted in one pass"
    text = markdown(results, bench.seconds, f"{len(paths)} photos, {how}")
    write_all({args.out / "change.md": text.encode()})
    page.write(args.write, text, mark)
    print(text)
