"""The tasks of training: the encoder, the detail head or both, and their losses.

``latents``: regression to the codes that made the samples, of f by gradient, normalised per channel, and of the styles
by `regression`; nothing goes backward through the generator. ``image``: see `image_loss`.
In both, half of the images are shifted, rotated and scaled, anew each time; in the latter a third of those change their
colours a little, too. The encoder alone learns with the true styles, as in the paper; together, half of a batch does.
The head of W+ sees unmoved images: W+ has no code for moved ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assets.compiled import compile_function
from assets.perceptual import stlpips
from export.samples import shards, styles
from export.training.image_loss import RenderedLoss, sample_by_sample
from export.training.moves import MoveRanges, draw_moves, tint
from networks.detail import Detail
from networks.encoder import Constant, Encoder
from networks.generator_file import Generator
from networks.pixels import from_uint8
from networks.pnorm import PNorm
from networks.precision import half
from networks.similarity import IDENTITY, move
from protocol.cuts import W_PLUS

NETWORKS = ("encoder", "detail", "both")
LOSSES = ("latents", "image")
P_NORM = 0.2  # weight of the styles' error in P-norm+; that of the modulations has 1
CLIP = 3.0  # bound of v: truncated styles are outliers on axes that no image shows
ANCHOR = 0.1  # weight of the styles' regression in the loss of images
MEASURED = 16  # held-out samples that are rendered


class TrainingError(ValueError):
    """Training cannot start: there are no samples, or the checkpoint is from another run."""


@dataclass(kw_only=True)
class Samples:
    """Images and the latents that made them, held in memory."""

    image: Tensor  # uint8 [N, 3, 256, 256]
    w: Tensor  # float32 [N, 3, 512]
    layers: Tensor  # int64 [N, n]

    def __len__(self) -> int:
        return len(self.image)

    def w_plus(self, index: Tensor) -> Tensor:
        """float32 [B, n, 512] of the samples at an index, int64 [B]."""
        return styles(self.w[index], self.layers[index])


def load_samples(folder: Path, split: str) -> Samples:
    """Read every shard of a split.

    Raises:
        TrainingError: there are none, or they are from another version.
    """
    parts: dict[str, list[Tensor]] = {"image": [], "w": [], "layers": []}
    for shard in shards(folder, split):
        if not set(parts) <= set(shard):
            raise TrainingError(
                f"the samples in `{folder}` are from another version: delete them, and run `python -m export samples`"
            )
        parts["image"].append(shard["image"].permute(0, 3, 1, 2).contiguous())
        parts["w"].append(shard["w"])
        parts["layers"].append(shard["layers"])
    if not parts["image"]:
        raise TrainingError(f"no {split} samples in `{folder}`: run `python -m export samples --split {split}`")
    return Samples(**{k: torch.cat(v) for k, v in parts.items()})


class Task:
    """The networks, their data, the loss of a batch and the held-out measurement."""

    def __init__(
        self,
        *,
        network: str,
        loss: str,
        generator: Generator,
        encoder: Encoder | Constant,
        detail: Detail | None,
        samples: Path,
        device: torch.device,
        pnorm: PNorm,
        perceptual_weight: float,
        identity_weight: float,
        seed: int,
        compiled: bool = True,
    ) -> None:
        self.network, self.kind, self.seed, self.device = network, loss, seed, device
        self.generator, self.cut = generator, encoder.cut
        generator.synthesis.to(device)
        self.encoder, self.detail = encoder.to(device), None if detail is None else detail.to(device)
        self.train, self.heldout = load_samples(samples, "train"), load_samples(samples, "heldout")
        if isinstance(self.encoder, Encoder):
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained: dict[str, nn.Module] = {"encoder": self.encoder} if network != "detail" else {}
        if network != "encoder":
            assert self.detail is not None
            self.trained["detail"] = self.detail
            self._pool = compile_function(self.detail.features) if compiled else self.detail.features
        self.pnorm = pnorm.to(device)
        weights = self.pnorm.eigenvalues.sqrt()
        self.axes: Tensor = weights / weights.mean()
        w_m_plus = self._truth(torch.arange(min(64, len(self.train))))[1]
        made = generator.synthesis.modulations(w_m_plus)
        scales: list[Tensor] = [layer.std(dim=0) * (layer.shape[1] * len(made)) ** 0.5 for layer in made]
        self.scales: Tensor = torch.cat(scales) / sum(layer.shape[1] for layer in made) ** 0.5
        self.image_loss = RenderedLoss(
            generator, perceptual_weight=perceptual_weight, identity_weight=identity_weight,
            device=device, compiled=compiled and loss == "image",
        )  # fmt: skip
        self.vgg = stlpips("vgg").to(device)

    @torch.no_grad()
    def measure_statistics(self) -> None:
        """Statistics of f per channel over the first samples, for a new encoder."""
        assert isinstance(self.encoder, Encoder)
        f = torch.cat([self._truth(i)[0] for i in torch.split(torch.arange(min(2048, len(self.train))), 64)])
        self.encoder.f_mean.copy_(f.mean(dim=(0, 2, 3)))
        self.encoder.f_std.copy_(f.std(dim=(0, 2, 3)))

    def start(self) -> None:
        """Set the networks to training; with small batches, batch norm keeps its statistics."""
        self.encoder.eval()
        if self.detail is not None:
            self.detail.eval()
        for network in self.trained.values():
            network.train(self.kind == "latents")
            network.requires_grad_(requires_grad=True)
        if self.detail is not None:
            self.detail.backbone.requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def _truth(self, index: Tensor, samples: Samples | None = None) -> tuple[Tensor, Tensor]:
        # -> f [B, C, cut, cut], w_m_plus [B, n, 512], of the images as rendered
        w_plus = (samples or self.train).w_plus(index).to(self.device)
        count = self.generator.synthesis.coarse_styles(self.cut)
        return self.generator.synthesis.coarse(w_plus[:, :count], cut=self.cut), w_plus[:, count:]

    def _seen(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        # -> image [B, 3, 256, 256] in [-1, 1], theta [B, 2, 3]: every other image moved, every sixth tinted
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        theta = draw_moves(len(index), moves=MoveRanges(), rng=rng)
        theta[:: 1 if self.cut == W_PLUS else 2] = IDENTITY
        theta = theta.to(self.device)
        image = move(from_uint8(self.train.image[index].to(self.device)), theta)
        if self.kind == "image":
            image[1::6] = tint(image[1::6], rng=rng)
        return image, theta

    def _f(self, image: Tensor) -> Tensor:
        # image [B, 3, 256, 256] -> f^o [B, 512, cut, cut]
        if isinstance(self.encoder, Constant):
            return cast("Tensor", self.encoder(image))
        small = F.avg_pool2d(image, image.shape[-1] // self.encoder.input_size)
        with half(self.device):
            guess: Tensor = self.encoder.body(small.contiguous(memory_format=torch.channels_last))
        return self.encoder.denormalise(guess.float())

    def _features(self, image: Tensor) -> Tensor:
        # image [B, 3, 256, 256] -> [B, 2310]
        with torch.no_grad(), half(self.device):
            # One at a time is fastest on a CPU, because the maps fit the cache.
            parts = torch.split(image, len(image) if image.is_cuda else 1)
            pooled: Tensor = torch.cat([self._pool(part) for part in parts])
        return pooled.float()

    def _w(self, image: Tensor) -> Tensor:
        # image [B, 3, 256, 256] -> w_m_plus [B, n, 512]
        assert self.detail is not None
        w: Tensor = self.detail.of_features(self._features(image))
        return w

    @torch.no_grad()
    def features(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Training data of the head: features [B, 2310] of images, half of them moved, and their styles [B, n, 512]."""
        return self._features(self._seen(index, int(index[0]))[0]), self._truth(index)[1]

    def _style_loss(self, ours: Tensor, true: Tensor) -> Tensor:
        # [B, n, 512] each -> errors in P-norm+ and in the generator's modulations
        whitened = (self.pnorm(ours).clamp(-CLIP, CLIP) - self.pnorm(true).clamp(-CLIP, CLIP)).square() * self.axes
        total: Tensor = P_NORM * whitened.mean() + (self._modulations(ours) - self._modulations(true)).square().mean()
        return total

    def _modulations(self, w: Tensor) -> Tensor:
        # w [B, n, 512] -> [B, C]: the modulations of all layers, standardised, every layer with the same weight
        return torch.cat(self.generator.synthesis.modulations(w), dim=1) / self.scales

    def loss(self, index: Tensor, step: int) -> Tensor:
        """The loss of a batch of sample indices, a scalar."""
        image, theta = self._seen(index, step)
        true_f, true_w = self._truth(index)
        with torch.set_grad_enabled(self.network != "detail"):
            f = self._f(image)
        if self.kind == "latents":
            assert isinstance(self.encoder, Encoder)
            norm = self.encoder.normalise
            return F.mse_loss(norm(f), norm(move(true_f, theta)))
        if self.network == "encoder":
            return sample_by_sample(self.image_loss, (f, true_w), image, theta)
        w = self._w(image)
        anchor = ANCHOR * self._style_loss(w, true_w)
        if self.network == "both":
            own = (torch.arange(len(index), device=w.device) // 2 % 2 == 0)[:, None, None]
            w = torch.where(own, w, true_w)
        return anchor + sample_by_sample(self.image_loss, (f, w), image, theta)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Errors on held-out samples; those of moved ones have the prefix ``moved_``.

        Returns:
            ``f``: of f, where 1.0 is the error of the best number per channel; ``f_map``: of the best map per channel.
            ``styles``: of the fine layers' modulations, where 1.0 is the error of their means. ``vgg``, ``psnr``:
            ST-LPIPS (VGG) and dB of images at 256 px, with the head's styles where it is trained, else with the true
            ones; ``identity``: the squared distance of their faces' descriptors, where that is part of the loss. A
            missing network's metrics are left out.
        """
        training = {network: network.training for network in self.trained.values()}
        for network in training:
            network.eval()
        found: dict[str, float] = {}
        moved = draw_moves(len(self.heldout), moves=MoveRanges(), rng=torch.Generator().manual_seed(0))
        shows = "encoder" in self.trained or self.kind == "image" or self.cut == W_PLUS
        for prefix, theta in (("", IDENTITY.expand_as(moved)), ("moved_", moved)):
            errors = self._f_errors(theta) if shows and isinstance(self.encoder, Encoder) else {}
            errors |= self._image_errors(theta) if shows else {}
            errors |= self._style_error(theta) if "detail" in self.trained else {}
            found |= {prefix + name: value for name, value in errors.items()}
        for network, mode in training.items():
            network.train(mode)
        return found

    def _held(self, theta: Tensor, count: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        # -> batches of image [B, 3, 256, 256], f, w_m_plus, theta; f is moved like the image
        for index in torch.split(torch.arange(count or len(self.heldout)), 64):
            moves = theta[index].to(self.device)
            f, w = self._truth(index, self.heldout)
            yield move(from_uint8(self.heldout.image[index].to(self.device)), moves), move(f, moves), w, moves

    def _f_errors(self, theta: Tensor) -> dict[str, float]:
        assert isinstance(self.encoder, Encoder)
        norm = self.encoder.normalise
        pairs = [(norm(f), norm(self._f(image))) for image, f, _, _ in self._held(theta)]
        true, guess = (torch.cat(part) for part in zip(*pairs, strict=True))
        error = (true - guess).square().mean()
        best = {"f": true.mean(dim=(0, 2, 3), keepdim=True), "f_map": true.mean(dim=0)}
        return {name: (error / (true - mean).square().mean()).item() for name, mean in best.items()}

    def _style_error(self, theta: Tensor) -> dict[str, float]:
        pairs = [(self._modulations(w), self._modulations(self._w(image))) for image, _, w, _ in self._held(theta)]
        true, guess = (torch.cat(part) for part in zip(*pairs, strict=True))
        return {"styles": ((true - guess).square().mean() / (true - true.mean(dim=0)).square().mean()).item()}

    def _image_errors(self, theta: Tensor) -> dict[str, float]:
        (image, _, w, moves) = next(self._held(theta, min(MEASURED, len(self.heldout))))
        f, w = self._f(image), self._w(image) if "detail" in self.trained else w
        given = torch.cat(
            [self.image_loss.render(*p).clamp(-1, 1) for p in zip(torch.split(f, 1), torch.split(w, 1), strict=True)]
        )
        square = (given - image).square().mean(dim=(1, 2, 3))
        found = {"psnr": (10 * torch.log10(4 / square)).mean().item(), "vgg": self.vgg(given, image).mean().item()}
        if self.image_loss.identity is not None:
            found["identity"] = self.image_loss.identity(given, image, moves).mean().item()
        return found
