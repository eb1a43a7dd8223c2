"""The terms of the loss, section 3.3 of BDInvert (arXiv 2108.08998), and one of IDinvert's (arXiv 2004.00049).

Each is an object with a name and a value for every job of a batch, a mean over its elements. Images are compared at
full size by ``mse`` and at 256 px by ``perceptual``; in a coarse step at some side by the first and at half of it by
the second. Both images of a comparison are reduced by the same area average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.detail import Detail
from networks.perceptual import STLPIPS

PERCEPTUAL_SIZE: Final = 256
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Target:
    """A photo as the terms compare it.

    Attributes:
        image: float32 [1, 3, s, s] in [-1, 1], RGB.
        features: of the perceptual network, five of float [1, C_i, H_i, W_i]; computed once.
        coarse: whether s is smaller than the generator's resolution.
    """

    image: Tensor
    features: tuple[Tensor, ...]
    coarse: bool


@dataclass(frozen=True, eq=False)
class Seen:
    """What the terms look at: a batch of B jobs of one side and precision.

    Attributes:
        image: float32 [B, 3, S, S], G(w*).
        target: what it is compared with, [B, ...] each.
        f: float32 [B, C, cut, cut].
        f_o: of the same shape: the encoder's estimate.
        w_m_plus: float32 [B, styles, 512].
        v: of the same shape: P-norm+(w_M+).
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
        measure = mean_square if seen.target.coarse else self._at_full_size
        return measure(reduced(seen.image, seen.target.image.shape[-1]) - seen.target.image)


class Perceptual:
    """LPIPS(G(w*), I), or here ST-LPIPS; norms and sums stay in float32."""

    name, lazy = "perceptual", False

    def __init__(self, network: STLPIPS, *, compiled: bool = False) -> None:
        self._network = network
        self._at_full_size = maybe_compiled(self._distance, compiled=compiled)

    def target(self, pixels: Tensor, side: int | None = None, *, half: bool) -> Target:
        """What the terms keep of a photo.

        Args:
            pixels: float32 [1, 3, S, S] in [-1, 1], S a power of two.
            side: at which ``mse`` compares it: even, a divisor of S below it. None is S.
            half: whether convolutions run in bfloat16.
        """
        image = pixels if side is None else reduced(pixels, side)
        with torch.no_grad():
            features = self._features(pixels, PERCEPTUAL_SIZE if side is None else side // 2, half=half)
        return Target(image, tuple(features), coarse=side is not None)

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        side = seen.target.image.shape[-1] // 2 if seen.target.coarse else PERCEPTUAL_SIZE
        measure = self._distance if seen.target.coarse else self._at_full_size
        return measure(seen.image, side, seen.half, *seen.target.features)

    def _distance(self, image: Tensor, side: int, half: bool, *features: Tensor) -> Tensor:
        distance: Tensor = self._network(self._features(image, side, half=half), list(features))
        return distance

    def _features(self, image: Tensor, size: int, *, half: bool) -> list[Tensor]:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            return self._network.features(reduced(image, size))


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


def every_term(network: STLPIPS, encoder: Detail | None, *, compiled: bool) -> list[Term]:
    """The terms that can be measured with these networks."""
    perceptual = Perceptual(network, compiled=compiled)
    found: list[Term] = [Mse(compiled=compiled), perceptual, Closeness(), PNormPlus()]
    return found if encoder is None else [*found, Domain(encoder)]


def measured(terms: Sequence[Term], seen: Seen, weighed: frozenset[str]) -> Tensor:
    """float32 [B, T]: each job's value of each term; lazy terms that are not ``weighed`` are 0."""
    zero = seen.image.new_zeros(len(seen.image))
    return torch.stack([zero if term.lazy and term.name not in weighed else term(seen) for term in terms], dim=1)


def mean_square(x: Tensor) -> Tensor:
    """[B, ...] to [B]."""
    return x.square().flatten(1).mean(dim=1)


def maybe_compiled(function: Callable[P, Tensor], *, compiled: bool) -> Callable[P, Tensor]:
    """The function, compiled for fixed shapes where that is asked for."""
    return torch.compile(function, dynamic=False) if compiled else function


def reduced(image: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """Area average of [B, 3, S, S], S a multiple of ``size``, to [B, 3, size, size]; smaller ones are kept."""
    if image.shape[-1] < size:
        return image
    assert image.shape[-1] % size == 0
    return F.avg_pool2d(image, image.shape[-1] // size)


def enlarged(image: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """[B, 3, S, S], S a divisor of ``size``, to [B, 3, size, size] by repetition."""
    times = size // image.shape[-1]
    return image if times <= 1 else image.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
