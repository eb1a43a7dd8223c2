"""How heads turn: the mean motion of the generator's samples along yaw, by which a photo's own pixels turn.

Samples that face the camera are turned, a little and more, to either side. One flow for all of them, coarse to fine by
the iterative least squares of Lucas and Kanade (IJCAI 1981), tells where each place was before. Turned to the other
side, a mirrored head moves the same way. What is odd in the yaw and what is even make the flow of any small yaw.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from client.change.filters import Floats, blurred, resized, step
from client.change.flow import Reach, shared
from client.change.yaw import SIDE, outwards
from export.directions.effects import PSI, draw
from export.directions.scorers import Scorer
from networks.generator_file import Generator

SAMPLES: Final = 120
CORRECTIONS: Final = 2  # until a sample faces the camera
STRENGTHS: Final = (0.5, 1.0, 1.5)  # of the direction, either way
_FIRST_SEED: Final = 7001
_PICTURE: Final = 128
# Of so many pictures a flow may be fine, and go as far as it is.
_OF_SAMPLES: Final = Reach(levels=(64, 128), bound=1.0, window=0.015, smooth=0.008, steps=8, stiff=0.01)
_FEATURES: Final = (0.3, 0.55)  # heads from the middle of the face: up to where a flow may be as fine as a nose
_FINE, _WIDE = 0.03, 0.06  # of the side: the Gaussians that smooth the result there, and elsewhere
_MIDDLE: Final = (0.5, 0.55)  # of the features, in an aligned face
_HEAD: Final = (0.4, 0.48)  # of the side: half of a head's width and height

Pictures = NDArray[np.uint8]


@torch.no_grad()
def turned_samples(generator: Generator, scorer: Scorer, step_of_one: Tensor, *, unit: float, count: int) -> Pictures:
    """Samples that face the camera, and the same turned: uint8 [count, 2 n + 1, 128, 128, 3], from left to right.

    Args:
        generator: draws them.
        scorer: tells their yaw.
        step_of_one: the step of strength 1 along yaw, float32 [512].
        unit: the yaw that it adds.
        count: how many samples.
    """
    strengths = (*(-s for s in reversed(STRENGTHS)), 0.0, *STRENGTHS)
    found: list[Pictures] = []
    seed = _FIRST_SEED
    with tqdm(total=count, desc="turned samples", disable=None) as bar:
        while len(found) < count:
            z = torch.randn(1, len(step_of_one), generator=torch.Generator().manual_seed(seed))
            seed += 1
            w = generator.mapping(z, PSI).expand(generator.synthesis.num_styles, -1)
            for _ in range(CORRECTIONS):
                scores = scorer(draw(generator, w))
                if scores is None:
                    break
                w = w - scores.yaw / unit * step_of_one
            else:
                views = [draw(generator, w + strength * step_of_one) for strength in strengths]
                found.append(np.stack([view.reshape(_PICTURE, 2, _PICTURE, 2, 3).mean((1, 3)) for view in views]))
                bar.update()
    return np.stack(found).round().astype(np.uint8)


def turning(samples: Pictures, *, unit: float) -> tuple[Floats, Floats]:
    """The motion that is odd in the yaw, and that which is even: float32 [SIDE, SIDE, 2] each.

    Args:
        samples: as of :func:`turned_samples`.
        unit: the yaw of strength 1.

    Returns:
        In shares of the aligned face's side, per yaw and per square of a yaw: ``front(p + y odd(p) + y² even(p))`` is
        like a head whose yaw is y.
    """
    middle = len(STRENGTHS)
    front = _both(samples[:, middle], samples[:, middle])
    flow = np.zeros((_PICTURE, _PICTURE, 2), np.float32)
    odd, even, before = [], [], 0.0
    for place, strength in enumerate(STRENGTHS, start=1):
        views = _both(samples[:, middle + place], samples[:, middle - place])
        flow = shared(_pairs(views, front), flow * (strength / before if before else 0.0), _OF_SAMPLES)
        before, yaw, other = strength, strength * unit, _mirrored(flow)
        odd.append((flow - other) / (2 * yaw))
        even.append((flow + other) / (2 * yaw**2))
    # The first is too small a turn to tell what grows with its square.
    return _smoothed(np.mean(odd, axis=0)), _smoothed(np.mean(even[1:], axis=0))


def _both(to_the_right: Pictures, to_the_left: Pictures) -> Pictures:
    return np.concatenate([to_the_right, to_the_left[:, :, ::-1]])


def _mirrored(flow: Floats) -> Floats:
    return flow[:, ::-1] * np.array([-1, 1], np.float32)


def _pairs(views: Pictures, fronts: Pictures) -> list[tuple[Floats, Floats]]:
    return [(view.astype(np.float32), front.astype(np.float32)) for view, front in zip(views, fronts, strict=True)]


def _smoothed(flow: Floats) -> Floats:
    """A motion [128, 128, 2] that is fine at the nose and smooth elsewhere: float32 [SIDE, SIDE, 2]."""
    side = len(flow)
    # What lies beyond a head stands still, and would hold its outline back.
    whole = outwards(flow.astype(np.float32), np.eye(2, 3, dtype=np.float32), side)
    places = ((np.arange(side) + 0.5) / side).astype(np.float32)
    across, down = (places - _MIDDLE[0]) / _HEAD[0], (places - _MIDDLE[1]) / _HEAD[1]
    fine = 1 - step(np.hypot(across[None], down[:, None]), *_FEATURES)[..., None]
    found = fine * blurred(whole, _FINE * side) + (1 - fine) * blurred(whole, _WIDE * side)
    return resized(found.astype(np.float32), (SIDE, SIDE))
