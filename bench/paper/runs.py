"""Every case by every contender: inverted by the running servers, edited, measured, and cached.

The name of a cached result is a hash of its image, the latent code that the method starts from, the recipe, the edit
and the judges. So a killed run continues, even in the middle of a refinement, and nothing is measured twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.paper.cases import Case
from bench.paper.contenders import CONTENDERS
from bench.paper.measures import Measured, Measures
from bench.reconstructions import JUDGES, digest, finished
from bench.targets import Image8
from client.api import Inverter
from client.atomic import write_all
from client.files.inversion import SUFFIX
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import TILE, png
from sidecar.optimise.recipe import PRESETS

_OWN = Path(__file__).with_name("measures.py").read_bytes()


@dataclass(frozen=True)
class Edit:
    """The edit of every reconstruction."""

    direction: str
    strength: float


@dataclass(frozen=True, eq=False)
class Record:
    """Measurements of a case by a contender, a key of ``CONTENDERS``; ``path`` has no suffix."""

    case: Case
    contender: str
    values: Measured
    path: Path

    def picture(self, kind: str) -> Image8:
        """The ``reconstruction`` or the ``edit``, uint8 RGB [512, 512, 3]."""
        with Image.open(self.path.with_suffix(f".{kind}.png")) as picture:
            return np.asarray(picture)

    def row(self) -> dict[str, Any]:
        """Its row in the table of all measurements."""
        case, contender = self.case, CONTENDERS[self.contender]
        return {
            "figure": case.figure,
            "image": case.name,
            "group": case.group,
            "transform": case.transform,
            "degree": case.degree,
            "contender": self.contender,
            "method": contender.method,
            "cut": contender.cut,
            **self.values,
        }


class Runs:
    """Makes and measures the results.

    Args:
        inverter: connected to the servers.
        measures: the metrics.
        folder: the cache.
        steps: steps per refinement; None for the recipe's.
        edit: the edit of every reconstruction.
    """

    def __init__(self, inverter: Inverter, measures: Measures, folder: Path, *, steps: int | None, edit: Edit) -> None:
        self._inverter, self._measures, self._folder = inverter, measures, folder
        self._steps, self._edit = steps, edit

    def __call__(self, case: Case, key: str) -> Record:
        """Run one contender on one case, unless the result is cached."""
        contender = CONTENDERS[key]
        encoded = png(case.image)
        photo = Photo.decode(encoded, name=f"{case.name}.png")
        code = self._inverter.invert(photo, method=contender.method, cut=contender.cut).inversion
        options = None
        if contender.preset is not None:
            options = RefineOptions(preset=contender.preset, steps=self._steps)
        recipe = None if contender.preset is None else PRESETS[contender.preset]
        made = repr((key, options, recipe)).encode()
        judged = hashlib.sha256(repr(self._edit).encode() + JUDGES + _OWN).digest()
        path = self._folder / digest(case.image, code, made + judged)
        record = path.with_suffix(".json")
        if not record.exists():
            if options is not None:
                file = self._folder / f"{digest(case.image, code, made)}{SUFFIX}"
                code = finished(self._inverter, replace(code, target=encoded), options, file)
            image = self._inverter.render(code)
            (edited,) = self._inverter.edit(code, self._edit.direction, [self._edit.strength])
            values = self._measures.reconstruction(case.image, image)
            values |= self._measures.edit(image, edited, self._edit.strength)
            done = code.refinement
            values |= {"steps": done.step if done else 0, "seconds": done.seconds if done else 0.0}
            # The numbers are written last: they mark the result as complete.
            write_all(
                {
                    path.with_suffix(".reconstruction.png"): png(_tile(image)),
                    path.with_suffix(".edit.png"): png(_tile(edited)),
                    record: json.dumps(values).encode(),
                }
            )
        return Record(case, key, json.loads(record.read_text()), path)


def _tile(image: Image8) -> Image.Image:
    return Image.fromarray(image).reduce(max(1, len(image) // TILE))
