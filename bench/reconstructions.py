"""Reconstructions by the running servers, judged and cached.

The name of a cached result is a hash of its inputs: the target, the latent code, the generator and the judges. So
nothing is measured twice, an interrupted refinement continues from its last checkpoint, and another encoder or head
has its own results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from assets.paths import DIRECTIONS, ROOT, picture_head_file
from bench.edits import EDITS, STRENGTHS, EditQuality
from bench.likeness import Likeness
from bench.targets import Image8
from client.api import DEFAULT_DOMAIN, Inverter
from client.atomic import write_all
from client.files.inversion import SUFFIX, Inversion
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import TILE, png
from client.sidecar.resume import Checkpoint, Refined
from client.triton.transport import Transport
from client.wire.timeout import Timeout
from judges.faces import Face
from judges.reconstruction import Quality, shrunk
from protocol.messages import Floats, Progress
from sidecar.optimise.recipe import PRESETS

METHODS = ("mean", "fast", "refined")
EYES = (128, 448)  # height and width of the eyes' part of a picture
# Identifies the judges: their code, and the pins of their models.
_JUDGES = (
    *sorted((ROOT / "judges").glob("*.py")),
    *(ROOT / "assets" / f"{name}.py" for name in ("face_net", "models", "perceptual", "wheels")),
    *(ROOT / "bench" / f"{name}.py" for name in ("edits", "likeness")),
    ROOT / "export" / "directions" / "scorers.py",
    ROOT / "networks" / "perceptual.py",
)
JUDGES = b"".join(path.read_bytes() for path in _JUDGES)
# What lays a change over a photo.
_CHANGE = sorted(path for path in (ROOT / "client" / "change").iterdir() if path.suffix in (".py", ".safetensors"))
CHANGE = b"".join(path.read_bytes() for path in _CHANGE)


@dataclass(frozen=True)
class Measurement:
    """A cached measurement: numbers, and the picture that they are of, uint8 RGB [512, 512, 3] or smaller."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether it is in the cache."""
        return self.path.with_suffix(".json").exists()

    def quality(self) -> Likeness:
        """Read the quality of a reconstruction."""
        return Likeness(**json.loads(self.path.with_suffix(".json").read_text()))

    def edit(self) -> EditQuality:
        """Read the quality of an edit."""
        return EditQuality(**json.loads(self.path.with_suffix(".json").read_text()))

    def picture(self) -> Image8:
        """Read the picture."""
        with Image.open(self.path.with_suffix(".png")) as picture:
            return np.asarray(picture)

    def write(self, found: Quality | EditQuality, shown: Image8) -> None:
        """Write or replace it."""
        picture = Image.fromarray(shown).reduce(max(1, len(shown) // TILE))
        # The numbers are written last: they mark the measurement as complete.
        numbers = json.dumps(asdict(found)).encode()
        write_all({self.path.with_suffix(".png"): png(picture), self.path.with_suffix(".json"): numbers})


# At each strength, both ends of each direction.
MeasuredEdits = dict[float, dict[str, tuple[Measurement, Measurement]]]


@dataclass(frozen=True)
class Judges:
    """Who judges.

    Attributes:
        quality: compares a target with its reconstruction.
        edit: compares a target with an edit along a direction, both at 256 px.
        face: finds a face.
    """

    quality: Callable[[Image8, Image8], Quality]
    edit: Callable[[str, Image8, Image8], EditQuality]
    face: Callable[[Image8], Face | None]


class Reconstructions:
    """Reconstructs and edits images by the running servers and judges the results, each once.

    Args:
        inverter: connected to the servers.
        style: float32 [512], the mean of W.
        judges: of the results.
        options: options of the refinements.
        folder: the cache.
    """

    def __init__(self, inverter: Inverter, style: Floats, judges: Judges, options: RefineOptions, folder: Path) -> None:
        self._inverter, self._style, self._judges = inverter, style, judges
        self._options, self._folder = options, folder

    def codes(self, image: Image8, methods: Sequence[str]) -> Iterator[tuple[str, Inversion]]:
        """Yield each method with its code of an image, uint8 RGB [1024, 1024, 3]."""
        encoded = png(image)
        fast = self._inverter.invert(Photo.decode(encoded, name="target.png")).inversion
        for method in methods:
            if method == "mean":
                yield method, replace(fast.editable, w_m_plus=np.tile(self._style, (len(fast.w_m_plus), 1)))
            elif method == "fast":
                yield method, fast
            else:
                yield method, self._refined(replace(fast, target=encoded), image)

    def judged(self, image: Image8, code: Inversion) -> Measurement:
        """The measurement of the picture of a code against its image."""
        kept = Measurement(self._folder / digest(image, code, JUDGES + painter(code)))
        if not kept.exists:
            reconstruction = self._inverter.render(code)
            kept.write(self._judges.quality(image, reconstruction), reconstruction)
        return kept

    def edited(self, image: Image8, code: Inversion) -> MeasuredEdits:
        """The measurements of edits of an image, the image plus the change."""
        photo = Photo.decode(png(image), name="target.png")
        found: MeasuredEdits = {strength: {} for strength in STRENGTHS}
        every = [sign * strength for strength in STRENGTHS for sign in (-1, 1)]
        for name in EDITS:
            other = JUDGES + (DIRECTIONS / DEFAULT_DOMAIN / f"{name}.safetensors").read_bytes()
            other += CHANGE
            other += b"" if code.face is None else b"".join(part.tobytes() for part in code.face.stored().values())
            ends = [Measurement(self._folder / digest(image, code, other + b"%+g" % end)) for end in every]
            if not all(kept.exists for kept in ends):
                for kept, picture in zip(ends, self._inverter.edit(code, name, every, photo), strict=True):
                    kept.write(self._judges.edit(name, shrunk(image), shrunk(picture)), picture)
            for strength, low, high in zip(STRENGTHS, ends[::2], ends[1::2], strict=True):
                found[strength][name] = (low, high)
        return found

    def eyes(self, image: Image8, code: Inversion) -> Image8:
        """The eyes of an image and, below, of the picture of its code, without scaling: uint8 [..., EYES[1], 3]."""
        face = self._judges.face(image)
        middle = np.array([0.5, 0.47]) * len(image) if face is None else face.landmarks[:2].mean(axis=0)
        high, wide = EYES
        x, y = (max(0, int(min(v - size / 2, len(image) - size))) for v, size in zip(middle, (wide, high), strict=True))
        both = image, self._inverter.render(code)
        return np.concatenate([picture[y : y + high, x : x + wide] for picture in both])

    def _refined(self, start: Inversion, image: Image8) -> Inversion:
        """Refine, or continue a refinement that is not finished."""
        recipe = repr((self._options, PRESETS[self._options.preset])).encode()
        path = self._folder / f"{digest(image, start, recipe)}{SUFFIX}"
        return finished(self._inverter, start, self._options, path)


def finished(inverter: Inverter, start: Inversion, options: RefineOptions, path: Path) -> Inversion:
    """The result of a refinement; every checkpoint is saved to a file, and a later call continues from there."""
    reached = Inversion.load(path) if path.exists() else start
    if reached.refinement is not None and reached.refinement.reason is not None:
        return reached
    events = inverter.refine(reached, options=options)
    with closing(events), tqdm(desc="refining", leave=False, disable=None) as bar:
        for event in events:
            match event:
                case Progress(step, steps):
                    bar.total = steps
                    bar.update(step - bar.n)
                case Checkpoint() | Refined():
                    reached = event.inversion
                    reached.save(path)
    return reached


def mean_style(transport: Transport) -> Floats:
    """The mean of W by the served mapping network, float32 [512]."""
    inputs = {"z": np.ones((1, 512), np.float32), "psi": np.zeros((1, 1), np.float32)}
    answer = transport.infer(f"{DEFAULT_DOMAIN}_mapping", inputs, ("w",), timeout=Timeout().request)
    return np.asarray(answer["w"][0], np.float32)


def painter(code: Inversion) -> bytes:
    """What makes the picture of two codes: code and weights. Of one it is the generator."""
    if code.faithful is None:
        return b""
    networks = ("back_projection", "picture_head", "retouch", "short_head")
    code_files = (ROOT / "networks" / f"{name}.py" for name in networks)
    eight_bits = ROOT / "export" / "serve" / "eight_bits.py"
    return b"".join(f.read_bytes() for f in (*code_files, eight_bits, picture_head_file(code.domain, code.cut)))


def digest(image: Image8, code: Inversion, other: bytes) -> str:
    """A name for a result of a target, a latent code, and other inputs."""
    found = hashlib.sha256(code.generator.encode())
    rendered = code.faithful or code
    for part in (image, code.f, code.w_m_plus, rendered.f, rendered.w_m_plus):
        found.update(np.ascontiguousarray(part).data)
    found.update(other)
    return found.hexdigest()[:20]
