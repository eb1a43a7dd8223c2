"""One step of the training, from a batch to its loss.

What is shipped is the photo plus the *change* between the edited and the plain render of its code. So three pictures
are compared with known ones: the render, the edited render, and the photo plus the change; the last two on samples,
where the edited picture is known. Codes are held near the generator's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from assets.compiled import compile_function
from export.training.looks.critic import Critic
from export.training.looks.draws import Batch
from export.training.looks.full_size import FullSize
from export.training.looks.losses import SAME, ImageLoss, reduced, seen
from networks.looks import TwoLooks
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.precision import half, in_half
from networks.short_head import ShortHead
from networks.similarity import move

Parts = dict[str, Tensor]
Crops = tuple[Tensor, Tensor] | None
FAR = 3.0  # standard deviations beyond which a known style is ignored


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of a step."""

    first: float = 0.5
    edit: float = 0.5
    change: float = 1.0
    keep: float = 0.3
    anchor: float = 0.1
    near: float = 0.3
    coarse: float = 1.0
    base: float = 0.5
    far: float = 3e-3
    critic: float = 0.05


@dataclass
class Codes:
    """The codes that the looks give for a batch.

    Attributes:
        first: f and w_m_plus after the first look, normalised, and what the short head paints of them.
        f: float32 [B, C, cut, cut], after the second.
        w: float32 [B, m, 512], after the second.
        w_coarse: float32 [B, coarse, 512].
        base: float32 [B, C, cut, cut], T(G_coarse(w_c)).
        f_edited: f, moved by the edit.
        w_edited: w, moved by the edit.
    """

    first: tuple[Tensor, Tensor, Tensor]
    f: Tensor
    w: Tensor
    w_coarse: Tensor
    base: Tensor
    f_edited: Tensor
    w_edited: Tensor


class Step:
    """The networks and their losses.

    Args:
        synthesis: the generator's.
        looks: trained.
        head: trained along.
        loss: loss of pictures at 256 px.
        weights: weights of the terms.
        critic: critic of full-size crops.
        first_frozen: whether the first look stays as it is.

    Attributes:
        crops: whether crops of full size count.
    """

    crops = True

    def __init__(
        self,
        synthesis: MobileStyleGAN,
        looks: TwoLooks,
        head: ShortHead,
        loss: ImageLoss,
        *,
        weights: Weights = Weights(),
        critic: Critic | None = None,
        first_frozen: bool,
    ) -> None:
        self.synthesis, self.looks, self.head, self.loss = synthesis, looks, head, loss
        self.weights, self.first_frozen = weights, first_frozen
        self.device = looks.f_mean.device
        self.whole = in_half(synthesis.fine, self.device)
        self.paint = in_half(self._paint, self.device)
        self.paint_to_learn = in_half(self._paint_to_learn, self.device)
        self.critic = critic
        self.full_size = FullSize(whole=self.whole, loss=loss, critic=critic, weight=weights.critic)

    def compile(self, *, short: bool) -> None:
        """Compile the whole half, and maybe the short one, below their autocast: above it, every call recompiles."""
        self.whole = self.full_size.whole = in_half(compile_function(self.synthesis.fine, dynamic=False), self.device)
        if short:
            self.paint = in_half(compile_function(self._paint, dynamic=False), self.device)
            self.paint_to_learn = in_half(compile_function(self._paint_to_learn, dynamic=False), self.device)

    def _paint_to_learn(self, f: Tensor, w: Tensor) -> Tensor:
        # f [B, C, cut, cut], w [B, m, 512] -> [B, 3, 256, 256]
        image: Tensor = self.head(self.synthesis.features(f, w), w[:, -LATE_STYLES:])
        return image

    def _paint(self, f: Tensor, w: Tensor) -> Tensor:
        # The head learns from the whole half alone: a head that learns to please shows what no generator paints.
        fixed = {name: value.detach() for name, value in self.head.named_parameters()}
        image: Tensor = functional_call(self.head, fixed, (self.synthesis.features(f, w), w[:, -LATE_STYLES:]))
        return image

    def encode(self, photo: Tensor, theta: Tensor, edit: Tensor) -> Codes:
        """Photos [B, 3, 256, 256], how their faces lie [B, 2, 3], and edits [B, num_styles, 512] -> codes."""
        looks, coarse = self.looks, self.looks.coarse
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.first_frozen):
            with half(self.device):
                f1, w1 = (x.float() for x in looks.look(photo))
            y1 = self.paint(looks.denormalise_f(f1), looks.denormalise_w(w1))
        with half(self.device):
            f2, w2 = looks.look_again(photo, y1.detach().clamp(-1.5, 1.5), f1.detach(), w1.detach())
            w_coarse = looks.look_at_face(photo, theta)
        f, w, w_coarse = looks.denormalise_f(f2.float()), looks.denormalise_w(w2.float()), w_coarse.float()
        # f moves by what the edit does to the coarse half, where the face is.
        both = self.synthesis.coarse(torch.cat([w_coarse, w_coarse + edit[:, :coarse]]), cut=looks.cut)
        base, edited = move(both, torch.cat([theta, theta])).chunk(2)
        return Codes((f1, w1, y1), f, w, w_coarse, base, f + (edited - base), w + edit[:, coarse:])

    def __call__(self, batch: Batch, rng: torch.Generator, *, whole: bool = False) -> tuple[Tensor, Parts, Crops]:
        """The loss of a batch, a scalar; its parts; crops of full size for the critic, true and ours.

        Args:
            batch: photos and what is known of them.
            rng: places the crops.
            whole: whether gradients go through the whole fine half, as on a GPU, or through the short head. What is
                compared is the whole half's picture either way: codes would learn to please a short head.
        """
        n, theta, mask = batch.samples, batch.theta, batch.mask
        codes = self.encode(batch.photo, theta, batch.edit)
        # No edited picture of a photo is known: one photo is enough to check that edits keep the person.
        f = torch.cat([codes.f, codes.f_edited[: n + 1]])
        w = torch.cat([codes.w, codes.w_edited[: n + 1]])
        with torch.set_grad_enabled(whole):
            big = self.whole(f, w)
            small = true = reduced(big, 256)
        if not whole:
            painted = self.paint(f, w)
            small = painted + (true - painted).detach()
        plain, edited = small[: len(theta)], small[len(theta) :]
        parts: Parts = {}

        total, found = self.loss(plain, seen(batch.photo, plain, mask), theta)
        parts |= {name: value[:n] for name, value in found.items()}
        parts |= {f"{name}_photo": value[n:] for name, value in found.items()}
        loss = total.mean()
        if n:
            loss = loss + self._edits(batch, plain[:n], edited[:n], parts)
            loss = loss + self._anchors(batch, codes, parts)
        if n < len(theta):
            loss = loss + self._photos(batch, codes, plain[n:], edited[n:], parts)
        if not self.first_frozen:
            loss = loss + self.weights.first * self._first(batch, codes, parts)
        far = self.looks.normalise_w(codes.w).square().mean() + self.looks.normalise_w(codes.w_coarse).square().mean()
        far = far + 0.1 * self.looks.normalise_f(codes.f).square().mean()
        parts["far"] = far
        loss = loss + self.weights.far * far
        head = self.paint_to_learn(f.detach(), w.detach()) - true.detach()
        parts["head"] = head.abs().mean((1, 2, 3)) + head.square().mean((1, 2, 3))
        loss = loss + parts["head"].mean()
        if not self.crops:
            return loss, parts, None
        if whole:
            full = self.full_size.all(batch, big, rng)
        else:
            full = self.full_size.one(batch, codes.f, codes.w, int(torch.randint(len(theta), (1,), generator=rng)), rng)
        return loss + full.loss, parts | full.parts, full.crops

    def _first(self, batch: Batch, codes: Codes, parts: Parts) -> Tensor:
        """The first look's own picture."""
        y1 = codes.first[2]
        target = seen(batch.photo, y1, batch.mask)
        first = self.loss.pixels(y1, target) + 2 * self.loss.looks(y1, target)
        first = first + 0.5 * self.loss.person(y1, target, batch.theta)
        parts["first"] = first
        mean: Tensor = first.mean()
        return mean

    def _edits(self, batch: Batch, plain: Tensor, edited: Tensor, parts: Parts) -> Tensor:
        """The edited picture of a sample is known: compare the edited render, and the photo plus the change."""
        n, theta, target = batch.samples, batch.theta[: batch.samples], batch.edited
        edit = self.loss.pixels(edited, target) + 2 * self.loss.looks(edited, target)
        shown = batch.photo[:n] + (edited - plain)
        change = self.loss.pixels(shown, target) + 2 * self.loss.closer(shown, target, theta)
        change = change + self.loss.person(shown, target, theta)
        parts["edit"], parts["change"] = edit, change
        loss: Tensor = self.weights.edit * edit.mean() + self.weights.change * change.mean()
        return loss

    def _anchors(self, batch: Batch, codes: Codes, parts: Parts) -> Tensor:
        """The codes of samples are known."""
        n, coarse, looks = batch.samples, self.looks.coarse, self.looks
        true_f, true_w = looks.normalise_f(batch.f), looks.normalise_w(batch.w)

        def styles(w: Tensor, true: Tensor) -> Tensor:
            return 0.3 * (looks.normalise_w(w) - true).square().clamp(max=FAR**2).mean()

        anchor = (looks.normalise_f(codes.f[:n]) - true_f).square().mean()
        anchor = anchor + styles(codes.w[:n], true_w[:, coarse:])
        base = (looks.normalise_f(codes.base[:n]) - true_f).square().mean()
        parts["anchor"], parts["coarse"] = anchor, base
        base = base + styles(codes.w_coarse[:n], true_w[:, :coarse])
        return self.weights.anchor * anchor + self.weights.coarse * base

    def _photos(self, batch: Batch, codes: Codes, plain: Tensor, edited: Tensor, parts: Parts) -> Tensor:
        """Photos are drawn to what their coarse styles make, which is drawn to them; edits of them keep the person."""
        n, looks = batch.samples, self.looks
        photo, mask, theta = batch.photo[n:], batch.mask[n:], batch.theta[n:]
        base = codes.base[n:]
        painted = self.paint(base, codes.w[n:].detach())
        target = seen(photo, painted, mask)
        rough = (painted - target).abs().mean((1, 2, 3)) + 2 * self.loss.looks(painted, target)
        rough = rough + self.loss.person(painted, target, theta)
        reach = F.avg_pool2d(mask, mask.shape[-1] // looks.cut)
        apart = (looks.normalise_f(codes.f[n:]) - looks.normalise_f(base)) * reach.sqrt()
        near = apart.square().mean() / reach.mean().clamp(min=0.1)
        kept = self.loss.person(photo[:1] + (edited - plain[:1]), photo[:1], theta[:1])
        keep = F.relu(kept - SAME) * batch.person[n : n + 1]
        parts["base"], parts["near"], parts["keep"] = rough, near, keep
        weights = self.weights
        loss: Tensor = weights.base * rough.mean() + weights.near * near + weights.keep * keep.mean()
        return loss
