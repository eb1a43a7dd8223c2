"""Recipes of the optimisation as data, and how a request's options choose one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from protocol.cuts import DEFAULT_CUT, space_of
from protocol.limits import ContractError, shortened
from protocol.methods import PRESETS as SPACES
from protocol.options import Options

# BDInvert, section 3.3, and the values of its official recipe; a term that is not named has no weight.
PAPER_WEIGHTS: Mapping[str, float] = {"mse": 1.0, "perceptual": 10.0, "f": 10.0, "p_norm": 0.01}
# Weights of the image terms alone, in the proportions of the default recipe.
IMAGE_WEIGHTS: Mapping[str, float] = {"mse": 20.0, "perceptual": 10.0}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a refinement.

    Attributes:
        until: share of the whole, in time, up to which it lasts, 0 to 1.
        side: in pixels, at which images are compared; None for the full size.
        short: whether the short head paints them, instead of the whole fine half.
        cost: cost of a step, in steps of full size; a number of steps is shared among stages by time.
        rate: factor of the learning rates.
        held: number of last styles that stay as they are.
    """

    until: float = 1.0
    side: int | None = None
    short: bool = False
    cost: float = 1.0
    rate: float = 1.0
    held: int = 0


FULL = Stage()
# f is first moved into place by the whole fine half.
COARSE_TO_FINE = (Stage(until=0.1, side=64), Stage(until=0.2, side=128), Stage(until=0.35, side=256))
# A step of the short head takes a tenth of a step of full size. No preset has it: docs/performance.md.
SHORT_FIRST = (
    Stage(until=0.16, side=128, short=True, cost=0.1, rate=0.5),
    Stage(until=0.25, side=256, short=True, cost=0.11, rate=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to minimise the loss with Adam.

    Attributes:
        steps: the most it takes.
        seconds: budget of optimisation; None for no limit.
        target: stop once the perceptual term is at most this; None for never.
        weights: weights of the loss terms by name; 0 where absent.
        rate_f: learning rate of ``f``.
        rate_w: learning rate of the styles, in the coordinates of the optimisation.
        betas: decay of the two moments; gradients shrink faster than the usual 0.999 can follow.
        whitened: optimise the styles as v = P-norm+(w_M+), where every axis has the same variance, instead of as w.
        clip: clip the start's v to +-clip; None for not. The axes of smallest variance hold most of the norm of a w
            that the mapping network did not make, and change no image.
        hold: clip v to +-hold after each step (P-norm+ as a hard bound); None for not.
        from_mean: start the styles at the mean of W instead of at the request's.
        warmup: steps over which the rates rise linearly.
        decay: let the rates fall as a cosine to 0 at the end of the steps or of the budget.
        half: run convolutions in bfloat16 if the device computes in it.
        stages: before those of full size, for a job that starts at f^o; they compare reduced images.
    """

    steps: int
    rate_f: float
    rate_w: float
    betas: tuple[float, float]
    whitened: bool
    clip: float | None
    from_mean: bool
    warmup: int
    decay: bool
    half: bool
    stages: tuple[Stage, ...] = ()
    hold: float | None = None
    seconds: float | None = None
    target: float | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: PAPER_WEIGHTS)

    def rate(self, done: float, step: int) -> float:
        """Factor of the learning rates.

        Args:
            done: share of the steps or of the budget that is used up, 0 to 1.
            step: steps done.
        """
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        return rising * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)) if self.decay else 1.0)

    def rates(self, done: float, step: int, stage: Stage) -> tuple[float, float]:
        """Learning rates of f and of the styles in a stage; other arguments as for :meth:`rate`."""
        factor = stage.rate * self.rate(done, step)
        return factor * self.rate_f, factor * self.rate_w

    def stage(self, done: float) -> Stage:
        """The stage of a step; ``done`` as for :meth:`rate`."""
        return next((stage for stage in self.stages if done < stage.until), FULL)

    def progress(self, share: float) -> float:
        """The share of the whole, in time, that a share of its steps takes, 0 to 1."""
        if all(stage.cost == FULL.cost for stage in self.stages):
            return share
        lengths, before = [], 0.0
        for stage in (*self.stages, FULL):
            lengths.append((stage.until - before, (stage.until - before) / stage.cost))
            before = stage.until
        left, passed = share * sum(steps for _, steps in lengths), 0.0
        for time, steps in lengths:
            if left < steps:
                return passed + time * left / steps
            left, passed = left - steps, passed + time
        return 1.0


# Image2StyleGAN: w itself, no regulariser. Rates and schedule as in the projection of StyleGAN2 (section 5).
_IM2S = Recipe(
    steps=240,
    rate_f=0.0,
    rate_w=0.1,
    betas=(0.9, 0.999),
    whitened=False,
    clip=None,
    from_mean=True,
    warmup=10,
    decay=True,
    half=True,
    weights=IMAGE_WEIGHTS,
)

PRESETS: Mapping[str, Recipe] = {
    # The official recipe to the letter.
    "paper": Recipe(
        steps=1200,
        rate_f=0.01,
        rate_w=0.01,
        betas=(0.9, 0.999),
        whitened=False,
        clip=None,
        from_mean=True,
        warmup=0,
        decay=False,
        half=False,
    ),
    # Chosen by measurement: docs/performance.md.
    "default": Recipe(
        steps=240,
        rate_f=0.045,
        rate_w=0.3,
        betas=(0.9, 0.95),
        whitened=True,
        clip=3.0,
        from_mean=False,
        warmup=10,
        decay=True,
        half=True,
        # A brow of f^o that lies on the photo's eye is painted as one, unless the whole face moves first.
        stages=COARSE_TO_FINE,
        # ST-LPIPS alone accepts another mouth and other eyes in the right place, and another person.
        weights={**PAPER_WEIGHTS, "mse": 20.0, "close_up": 4.0, "person": 2.0, "eyes": 4.0},
    ),
    "im2s": _IM2S,
    # IDinvert: equation 8, whose domain term has twice the weight of the pixels'.
    "idinvert": replace(_IM2S, from_mean=False, weights={**IMAGE_WEIGHTS, "domain": 40.0}),
}


def chosen(options: Options, *, cut: int = DEFAULT_CUT) -> Recipe:
    """The recipe of a request for codes whose f has the side ``cut``.

    Raises:
        ContractError: the preset is unknown, or of another space.
    """
    if options.preset not in PRESETS:
        raise ContractError(f"unknown preset {shortened(options.preset)}: expected {', '.join(PRESETS)}")
    if SPACES[options.preset] != (space := space_of(cut)):
        fitting = " or ".join(name for name in PRESETS if SPACES[name] == space)
        raise ContractError(
            f"the preset {options.preset} refines {SPACES[options.preset]}: for {space}, choose {fitting}"
        )
    preset = PRESETS[options.preset]
    held = {} if options.clip is None else {"p_norm": 0.0}
    return replace(
        preset,
        steps=preset.steps if options.steps is None else options.steps,
        seconds=options.seconds,
        target=options.target,
        hold=options.clip,
        weights={**preset.weights, **held, **options.weights},
    )
