"""The terms of the loss, section 3.3 of BDInvert (arXiv 2108.08998), and one of IDinvert's (arXiv 2004.00049).

Each is an object with a name and a value for every job of a batch, a mean over its elements. Images are compared at
full size by ``mse`` and at 256 px by ``perceptual``; in a coarse step at some side by the first and at half of it by
the second; in a step of the short head at 128 px by the second, with a quicker network. Both images of a comparison are
reduced by the same area average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, ParamSpec, Protocol

import torch
from torch import Tensor

from assets.compiled import compile_function
from networks.detail import Detail
from networks.perceptual import STLPIPS
from sidecar.optimise.area import PERCEPTUAL_SIZE, reduced
from sidecar.optimise.faces import CloseUp, Eyes, FaceTarget, FaceTerms, Person
from sidecar.optimise.recipe import FULL, Stage

QUICK_SIZE: Final = 128
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Target:
    """A photo as the terms compare it.

    Attributes:
        image: float32 [1, 3, s, s] in [-1, 1], RGB.
        features: features of the perceptual network, five of float [1, C_i, H_i, W_i]; computed once.
        stage: the stage in which it is compared.
        face: where the job weighs terms of it.
    """

    image: Tensor
    features: tuple[Tensor, ...]
    stage: Stage
    face: FaceTarget | None = None

    @property
    def perceptual_size(self) -> int:
        """Side in pixels at which the perceptual network sees images."""
        side = self.stage.side
        if side is None:
            return PERCEPTUAL_SIZE
        return min(side, QUICK_SIZE) if self.stage.short else side // 2


@dataclass(frozen=True, eq=False)
class Seen:
    """What the terms look at: a batch of B jobs of one side and precision.

    Attributes:
        image: float32 [B, 3, S, S], G(w*).
        target: what it is compared with, [B, ...] each.
        f: float32 [B, C, cut, cut].
        f_o: the encoder's estimate, of the same shape.
        w_m_plus: float32 [B, styles, 512].
        v: P-norm+(w_M+), of the same shape.
        half: whether convolutions run in bfloat16.
    """

    image: Tensor
    target: Target
    f: Tensor
    f_o: Tensor
    w_m_plus: Tensor
    v: Tensor
    half: bool

    def __post_init__(self) -> None:
        assert self.image.ndim == self.target.image.ndim == self.f.ndim == 4
        assert self.f.shape == self.f_o.shape and self.w_m_plus.shape == self.v.shape


class Term(Protocol):
    """A term of the loss.

    Attributes:
        name: a field of ``protocol.terms.Terms``.
        lazy: whether it costs so much that it is measured only where it has a weight.
    """

    name: str
    lazy: bool

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""


class Mse:
    """||G(w*) - I||^2."""

    name, lazy = "mse", False

    def __init__(self, *, compiled: bool = False) -> None:
        self._at_full_size = maybe_compiled(mean_square, compiled=compiled)

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        measure = mean_square if seen.target.stage.side else self._at_full_size
        return measure(reduced(seen.image, seen.target.image.shape[-1]) - seen.target.image)


class Perceptual:
    """LPIPS(G(w*), I), or here ST-LPIPS; norms and sums stay in float32.

    Args:
        network: network for steps that render whole images.
        quick: network for steps of the short head; None if there are none.
        compiled: whether to compile the distances at the sizes that most steps take.
    """

    name, lazy = "perceptual", False

    def __init__(self, network: STLPIPS, quick: STLPIPS | None = None, *, compiled: bool = False) -> None:
        self._network, self._quick = network, quick
        self._at_full_size = maybe_compiled(self._distance, compiled=compiled)
        self._quickly = maybe_compiled(self._quick_distance, compiled=compiled)

    def target(self, pixels: Tensor, stage: Stage = FULL, *, half: bool) -> Target:
        """What the terms keep of a photo.

        Args:
            pixels: float32 [1, 3, S, S] in [-1, 1], S a power of two.
            stage: its side is that at which ``mse`` compares it: even, a divisor of S below it. None is S.
            half: whether convolutions run in bfloat16.
        """
        image = pixels if stage.side is None else reduced(pixels, stage.side)
        found = Target(image, (), stage)
        network = self._network_of(stage)
        with torch.no_grad():
            features = _features(network, pixels, found.perceptual_size, half=half)
        return replace(found, features=tuple(features))

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        stage = seen.target.stage
        measure = self._quickly if stage.short else self._distance if stage.side else self._at_full_size
        return measure(seen.image, seen.target.perceptual_size, seen.half, *seen.target.features)

    def _network_of(self, stage: Stage) -> STLPIPS:
        if not stage.short:
            return self._network
        assert self._quick is not None
        return self._quick

    def _distance(self, image: Tensor, side: int, half: bool, *features: Tensor) -> Tensor:
        distance: Tensor = self._network(_features(self._network, image, side, half=half), list(features))
        return distance

    def _quick_distance(self, image: Tensor, side: int, half: bool, *features: Tensor) -> Tensor:
        assert self._quick is not None
        distance: Tensor = self._quick(_features(self._quick, image, side, half=half), list(features))
        return distance


class Closeness:
    """||f - f^o||^2."""

    name, lazy = "f", False

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        return mean_square(seen.f - seen.f_o)


class PNormPlus:
    """||P-norm+(w_M+)||^2."""

    name, lazy = "p_norm", False

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        return mean_square(seen.v)


class Domain:
    """||w - E(G(w))||^2 of IDinvert (section 3.2), E the encoder into W+, which sees the image at 256 px."""

    name, lazy = "domain", True

    def __init__(self, encoder: Detail) -> None:
        self._encoder = encoder

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        with torch.autocast(seen.image.device.type, torch.bfloat16, enabled=seen.half):
            features = self._encoder.features(enlarged(reduced(seen.image)))
        return mean_square(seen.w_m_plus - self._encoder.of_features(features.float()))


def _features(network: STLPIPS, image: Tensor, size: int, *, half: bool) -> list[Tensor]:
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        return network.features(reduced(image, size))


def every_term(
    network: STLPIPS,
    encoder: Detail | None,
    faces: FaceTerms | None,
    *,
    quick: STLPIPS | None = None,
    compiled: bool,
) -> list[Term]:
    """The terms that can be measured with these networks."""
    perceptual = Perceptual(network, quick, compiled=compiled)
    found: list[Term] = [Mse(compiled=compiled), perceptual, Closeness(), PNormPlus()]
    found += [] if encoder is None else [Domain(encoder)]
    return found if faces is None else [*found, CloseUp(faces), Person(faces), Eyes(faces)]


def mean_square(x: Tensor) -> Tensor:
    """[B, ...] to [B]."""
    return x.square().flatten(1).mean(dim=1)


def maybe_compiled(function: Callable[P, Tensor], *, compiled: bool) -> Callable[P, Tensor]:
    """The function, compiled for fixed shapes if ``compiled``."""
    return compile_function(function, dynamic=False) if compiled else function


def enlarged(image: Tensor) -> Tensor:
    """[B, 3, S, S], S a divisor of 256, to [B, 3, 256, 256] by repetition."""
    times = PERCEPTUAL_SIZE // image.shape[-1]
    return image if times <= 1 else image.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
