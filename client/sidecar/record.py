"""A refinement as values: what may be chosen, what is measured, and how far it got."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from client.errors import ParameterError
from client.files.atomic import shown
from protocol import methods

Reason = Literal["steps", "seconds", "target"]
Floats = NDArray[np.float32]
REASONS: Final = get_args(Reason)
PRESETS: Final = tuple(methods.PRESETS)
WEIGHTS: Final = ("mse", "perceptual", "f", "p_norm", "domain")
MAX_STEPS: Final = 10_000
MAX_SECONDS: Final = 86_400.0
MAX_DISTANCE: Final = 10.0
MAX_WEIGHT: Final = 1e6
MAX_CLIP: Final = 1e3
MAX_STATE_TENSORS: Final = 256
_STATE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The largest float32.
_ANY = 3.4e38
# What is below could be rounded to 0 on its way, which means none.
_LEAST_SECONDS, _LEAST_DISTANCE, _LEAST_CLIP = 1e-3, 1e-6, 1e-3


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """What may be chosen; None is the preset's own.

    Attributes:
        preset: name of a recipe: ``default`` or ``paper`` for F/W+, ``im2s`` or ``idinvert`` for W+.
        steps: of the whole refinement, 1 to 10000.
        seconds: budget of optimisation, over all attempts, 0.001 to 86400.
        target: the refinement stops once the perceptual term at 256 px is at most this, 0.000001 to 10.
        weights: of the terms ``mse``, ``perceptual``, ``f``, ``p_norm`` and ``domain``, 0 to 1e6 each; the preset's
            where absent.
        clip: every number of P-norm+(w_M+) is kept within +-clip, 0.001 to 1000, in place of the term ``p_norm``.
        checkpoint_every: steps between checkpoints, 1 to 10000: what a killed server costs at most.
        preview_every: steps between previews, 1 to 10000; 0 is none.

    Raises:
        ParameterError: on creation, when a value is out of its range.
    """

    preset: str = "default"
    steps: int | None = None
    seconds: float | None = None
    target: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    checkpoint_every: int = 25
    preview_every: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ParameterError(
                f"There is no preset '{shown(str(self.preset), limit=40)}', only {', '.join(PRESETS)}."
            )
        if self.steps is not None:
            _whole(self.steps, "The number of steps", 1, MAX_STEPS)
        if self.seconds is not None:
            _number(self.seconds, "The budget of seconds", _LEAST_SECONDS, MAX_SECONDS)
        if self.target is not None:
            _number(self.target, "The target distance", _LEAST_DISTANCE, MAX_DISTANCE)
        if self.clip is not None:
            _number(self.clip, "The bound of P-norm+", _LEAST_CLIP, MAX_CLIP)
        for name, value in self.weights.items():
            if name not in WEIGHTS:
                known = f"{', '.join(WEIGHTS[:-1])} and {WEIGHTS[-1]}"
                raise ParameterError(f"There is no loss term '{shown(str(name), limit=40)}', only {known}.")
            _number(value, f"The weight of {name}", 0, MAX_WEIGHT)
        _whole(self.checkpoint_every, "The number of steps between checkpoints", 1, MAX_STEPS)
        _whole(self.preview_every, "The number of steps between previews", 0, MAX_STEPS)


@dataclass(frozen=True)
class Terms:
    """The loss and its terms, not weighted, each a mean over its elements (see ``Terms`` in refine.proto).

    Attributes:
        total: the weighted sum that is minimised.
        mse: mean square error of images in [-1, 1].
        perceptual: perceptual distance at 256 px, or smaller in the first, coarse steps.
        f: mean square of ``f - f_o``.
        p_norm: mean square of P-norm+(w_M+).
        domain: mean square of w - E(G(w)), E the encoder into W+; 0 where it has no weight.

    Raises:
        ParameterError: on creation, when a term is not finite.
    """

    total: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    domain: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _number(value, f"The term {name}", -_ANY, _ANY)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How good a result is, by other measures than the loss.

    Attributes:
        stlpips_alex: ST-LPIPS (Alex) at 256 px; 0 is equal.
        psnr_256: peak signal-to-noise ratio at 256 px, dB.
        psnr: likewise, at the generator's resolution.
        identity: cosine of face embeddings, -1 to 1; None without a face in both images.
        landmarks: mean distance of five facial landmarks, in eye distances of the photo; None likewise.
        face: whether a face is found in the reconstruction; None where the photo shows none.

    Raises:
        ParameterError: on creation, when a number is not finite.
    """

    stlpips_alex: float
    psnr_256: float
    psnr: float
    identity: float | None = None
    landmarks: float | None = None
    face: bool | None = None

    def __post_init__(self) -> None:
        for name in ("stlpips_alex", "psnr_256", "psnr", "identity", "landmarks"):
            value = getattr(self, name)
            if value is not None or name in {"stlpips_alex", "psnr_256", "psnr"}:
                _number(value, f"The metric {name}", -_ANY, _ANY)
        if not (self.face is None or isinstance(self.face, bool)):
            raise ParameterError("The metric face is neither true nor false.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Refinement:
    """How far a refinement got, as an inversion file keeps it.

    Attributes:
        options: those it was asked for.
        step: steps done.
        steps: steps it has at most; None where the server has not said.
        seconds: of optimisation so far, over all attempts.
        terms: at the last step done; None before the first.
        optimiser: float32 tensors by name, what the server needs to go on; empty once finished.
        reason: why it ended: all steps done, the budget used up, the target reached; None where it can go on.
        metrics: of the result, once finished and judged.

    Raises:
        ParameterError: on creation, when a value is out of its range, or a tensor not float32 or not finite.
    """

    options: RefineOptions
    step: int
    steps: int | None = None
    seconds: float = 0.0
    terms: Terms | None = None
    optimiser: Mapping[str, Floats] = field(default_factory=dict)
    reason: Reason | None = None
    metrics: Metrics | None = None

    def __post_init__(self) -> None:
        _whole(self.step, "The step", 0, MAX_STEPS)
        if self.steps is not None:
            _whole(self.steps, "The number of steps", max(self.step, 1), MAX_STEPS)
        _number(self.seconds, "The number of seconds", 0, _ANY)
        if self.reason is not None and self.reason not in REASONS:
            raise ParameterError(f"The reason of the end is '{shown(str(self.reason), limit=40)}', which is none.")
        check_optimiser(self.optimiser)

    @property
    def resumable(self) -> bool:
        """Whether it was interrupted after a step, so that it can go on exactly."""
        return self.reason is None and self.step > 0

    def encode(self) -> str:
        """Return all but the optimiser's tensors as JSON."""
        # How often somebody wants to look is no property of the refinement.
        kept = ("preset", "steps", "seconds", "target", "clip", "checkpoint_every")
        options = {key: getattr(self.options, key) for key in kept}
        values = {"options": {**options, "weights": dict(self.options.weights)}}
        rest = {key: getattr(self, key) for key in ("step", "steps", "seconds", "reason")}
        measured = {key: value and asdict(value) for key, value in (("terms", self.terms), ("metrics", self.metrics))}
        return json.dumps({**values, **rest, **measured}, allow_nan=False)

    @classmethod
    def decode(cls, text: str, optimiser: Mapping[str, Floats]) -> Refinement:
        """Read what ``encode`` wrote.

        Raises:
            ParameterError: the text is damaged, or holds a value that is out of its range.
        """
        try:
            values = json.loads(text)
            options, terms, metrics = values.pop("options"), values.pop("terms"), values.pop("metrics")
            return cls(
                options=RefineOptions(**options),
                terms=None if terms is None else Terms(**terms),
                metrics=None if metrics is None else Metrics(**metrics),
                optimiser=optimiser,
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ParameterError("The account of the refinement is damaged.") from None


def check_optimiser(tensors: Mapping[str, Floats]) -> None:
    """Raise ``ParameterError`` unless the optimiser's tensors are few, named plainly, float32 and finite."""
    if len(tensors) > MAX_STATE_TENSORS:
        raise ParameterError(f"The optimiser's state has {len(tensors)} tensors, more than {MAX_STATE_TENSORS}.")
    for name, value in tensors.items():
        if not _STATE_NAME.fullmatch(name):
            raise ParameterError(f"The optimiser's tensor '{shown(name, limit=64)}' has no plain name.")
        if value.dtype != np.float32:
            raise ParameterError(f"The optimiser's tensor '{name}' is {value.dtype}, not float32.")
        if not np.isfinite(value).all():
            raise ParameterError(f"The optimiser's tensor '{name}' holds numbers that are not finite.")


def _whole(value: Any, what: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ParameterError(f"{what} is a whole number from {low} to {high}, not {shown(str(value), limit=40)}.")


def _number(value: Any, what: str, low: float, high: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):
        limits = f"a number from {low:g} to {high:g}" if high < _ANY else "a finite number"
        raise ParameterError(f"{what} is {limits}, not {shown(str(value), limit=40)}.")
