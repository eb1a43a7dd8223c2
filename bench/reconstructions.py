"""Reconstructions by the running servers, judged and cached.

The name of a cached result is a hash of its inputs: the target, the latent code, the generator and the judges. So
nothing is measured twice, an interrupted refinement continues from its last checkpoint, and another encoder or detail
head has its own results.
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

from assets.paths import ROOT
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
from judges.reconstruction import Quality
from protocol.messages import Floats, Progress
from sidecar.optimise.recipe import PRESETS

METHODS = ("mean", "fast", "refined")
# Identifies the judges: their code, and the pins of their models.
_JUDGES = (
    *sorted((ROOT / "judges").glob("*.py")),
    *(ROOT / "assets" / f"{name}.py" for name in ("models", "perceptual", "wheels")),
    ROOT / "networks" / "perceptual.py",
)
JUDGES = b"".join(path.read_bytes() for path in _JUDGES)


@dataclass(frozen=True)
class Measurement:
    """A cached measurement: the quality of a reconstruction, and its picture, uint8 RGB [512, 512, 3] or smaller."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether it is in the cache."""
        return self.path.with_suffix(".json").exists()

    def quality(self) -> Quality:
        """Read the quality."""
        return Quality(**json.loads(self.path.with_suffix(".json").read_text()))

    def picture(self) -> Image8:
        """Read the picture."""
        with Image.open(self.path.with_suffix(".png")) as picture:
            return np.asarray(picture)

    def write(self, quality: Quality, reconstruction: Image8) -> None:
        """Write or replace it."""
        picture = Image.fromarray(reconstruction).reduce(max(1, len(reconstruction) // TILE))
        # The numbers are written last: they mark the measurement as complete.
        numbers = json.dumps(asdict(quality)).encode()
        write_all({self.path.with_suffix(".png"): png(picture), self.path.with_suffix(".json"): numbers})


class Reconstructions:
    """Reconstructs images by the running servers and judges them, each once.

    Args:
        inverter: connected to the servers.
        style: float32 [512], the mean of W.
        judge: compares a target with its reconstruction.
        options: options of the refinements.
        folder: the cache.
    """

    def __init__(
        self,
        inverter: Inverter,
        style: Floats,
        judge: Callable[[Image8, Image8], Quality],
        options: RefineOptions,
        folder: Path,
    ) -> None:
        self._inverter, self._style, self._judge = inverter, style, judge
        self._options, self._folder = options, folder

    def __call__(self, image: Image8, methods: Sequence[str]) -> Iterator[tuple[str, Measurement]]:
        """Yield each method with its measurement of an image, uint8 RGB [1024, 1024, 3]."""
        encoded = png(image)
        fast = self._inverter.invert(Photo.decode(encoded, name="target.png")).inversion
        for method in methods:
            if method == "mean":
                code = replace(fast, w_m_plus=np.tile(self._style, (len(fast.w_m_plus), 1)))
            elif method == "fast":
                code = fast
            else:
                code = self._refined(replace(fast, target=encoded), image)
            kept = Measurement(self._folder / digest(image, code, JUDGES))
            if not kept.exists:
                reconstruction = self._inverter.render(code)
                kept.write(self._judge(image, reconstruction), reconstruction)
            yield method, kept

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


def digest(image: Image8, code: Inversion, other: bytes) -> str:
    """A name for a result of a target, a latent code, and other inputs."""
    found = hashlib.sha256(code.generator.encode())
    for part in (image, code.f, code.w_m_plus):
        found.update(np.ascontiguousarray(part).data)
    found.update(other)
    return found.hexdigest()[:20]
