"""One step of the training, from a batch to its loss.

What is shipped is the photo plus the *change* between the edited and the plain render of its code. So three pictures
are compared with known ones: the render, the edited render, and the photo plus the change; the last two on samples,
where the edited picture is known. Codes are held near the generator's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch._functorch.config as functorch_config
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from assets.compiled import compile_function
from export.training.looks.balance import Balance
from export.training.looks.codes import Codes, length, swapped
from export.training.looks.critic import Code, CodeCritic, Critic
from export.training.looks.draws import Batch
from export.training.looks.full_size import FullSize
from export.training.looks.losses import SAME, ImageLoss, Pair, reduced, seen, together
from networks.looks import PHOTO, TwoLooks
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.precision import half, in_half
from networks.short_head import ShortHead
from networks.similarity import move

Parts = dict[str, Tensor]
LONG, SHORT = 1.15, 0.95  # bounds of the length of styles and of f, where those of samples have about 1
YIELDS = 0.1  # how far f is drawn to what the coarse styles make
STYLES = 0.3  # weight of the error of styles beside that of f
FAR = 3.0  # standard deviations beyond which a known style is ignored


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of a step; of the critics' two, shares (:mod:`export.training.looks.balance`)."""

    first: float = 0.5
    edit: float = 0.5
    change: float = 1.0
    keep: float = 0.5
    anchor: float = 0.5
    near: float = 0.4
    coarse: float = 1.0
    base: float = 0.5
    far: float = 3.0
    fooled: float = 0.1
    natural: float = 0.1


@dataclass
class Shown:
    """What the critics learn from, the generator's own and ours: crops at full size, and codes. None if unseen.

    With the crops comes which of ours count.
    """

    crops: tuple[Tensor, Tensor, Tensor] | None
    codes: tuple[Code, Code] | None


class Step:
    """The networks and their losses.

    Args:
        synthesis: the generator's.
        looks: trained.
        head: trained along.
        loss: loss of pictures at 256 px.
        weights: weights of the terms.
        critic: critic of full-size crops.
        code_critic: critic of codes.
        first_frozen: whether the first look stays as it is.

    Attributes:
        crops: whether crops of full size count.
        kept: photos of a batch whose edits must keep the person.
        found: float32 [P, num_styles, 512], the styles found in the photos of the last batch.
        balance: weights of the critics' terms.
    """

    found: Tensor | None = None

    crops = True
    kept = 1

    def __init__(
        self,
        synthesis: MobileStyleGAN,
        looks: TwoLooks,
        head: ShortHead,
        loss: ImageLoss,
        *,
        weights: Weights = Weights(),
        critic: Critic | None = None,
        code_critic: CodeCritic | None = None,
        first_frozen: bool,
    ) -> None:
        self.synthesis, self.looks, self.head, self.loss = synthesis, looks, head, loss
        self.weights, self.first_frozen = weights, first_frozen
        self.device = looks.f_mean.device
        self.whole = in_half(synthesis.fine, self.device)
        self.paint = in_half(self._paint, self.device)
        self.paint_to_learn = in_half(self._paint_to_learn, self.device)
        self.critic, self.code_critic = critic, code_critic
        self.full_size = FullSize(whole=self.whole, loss=loss, critic=critic)
        last = looks.second.f[2].weight, looks.second.w.weight
        shares = {"fooled": weights.fooled, "natural": weights.natural}
        self.balance = Balance(last, shares)  # type: ignore[arg-type]

    def compile(self) -> None:
        """Compile the whole half, below its autocast: above it, every call recompiles."""
        functorch_config.donated_buffer = False  # a backward pass may be followed by another
        self.whole = self.full_size.whole = in_half(compile_function(self.synthesis.fine, dynamic=False), self.device)

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

    def __call__(
        self, batch: Batch, rng: torch.Generator, *, whole: bool = False, balance: bool = False
    ) -> tuple[Tensor, Parts, Shown]:
        """The loss of a batch, a scalar; its parts; what the critics learn from.

        Args:
            batch: photos and what is known of them.
            rng: places the crops.
            whole: whether gradients go through the whole fine half, as on a GPU, or through the short head. What is
                compared is the whole half's picture either way: codes would learn to please a short head.
            balance: whether to set the critics' weights anew.
        """
        n, count = batch.samples, len(batch.theta)
        kept = min(self.kept, count - n)
        codes = self.encode(batch.photo, batch.theta, batch.edit)
        shown = swapped(batch, codes, rng)
        # No edited picture of a photo is known: a few photos are enough to check that edits keep the person.
        f = torch.cat([shown.f, shown.f_edited[: n + kept]])
        w = torch.cat([shown.w, shown.w_edited[: n + kept]])
        with torch.set_grad_enabled(whole):
            big = self.whole(f, w)
            small = true = reduced(big, PHOTO)
        if not whole:
            painted = self.paint(f, w)
            small = painted + (true - painted).detach()
        found = self.looks.normalise_w(torch.cat([codes.w_coarse, codes.w], dim=1).detach()[n:])
        self.found = self.looks.denormalise_w(found / length(found, 2).clamp(min=1))
        pairs = self._pairs(batch, codes, small[:count], small[count:])
        loss, parts = self._pictures(batch, pairs)
        for term, named in (self._anchors(batch, codes), self._near(batch, codes)):
            loss, parts = loss + term, parts | named
        critics: dict[str, Tensor] = {}
        judged = None
        if self.code_critic is not None and n < count:
            ours = self.looks.normalise_f(codes.f[n:]), self.looks.normalise_w(codes.w[n:])
            judged = (self.looks.normalise_f(batch.codes[0]), self.looks.normalise_w(batch.codes[1])), ours
            parts["natural"] = self._natural(batch.mask[n:], self.code_critic, ours)
            critics["natural"] = parts["natural"].mean()
        # Every other code is enough for the head.
        head = self.paint_to_learn(f.detach()[::2], w.detach()[::2]) - true.detach()[::2]
        parts["head"] = head.abs().mean((1, 2, 3)) + head.square().mean((1, 2, 3))
        loss = loss + parts["head"].mean()
        crops = None
        if self.crops:
            if whole:
                full = self.full_size.all(batch, big, kept, rng)
            else:
                full = self.full_size.one(batch, shown.f, shown.w, int(torch.randint(count, (1,), generator=rng)), rng)
            loss, parts, crops = loss + full.loss, parts | full.parts, full.crops
            if full.fooled is not None:
                critics["fooled"] = full.fooled
        if balance:
            self.balance.weigh(loss, critics)
        return loss + self.balance.sum(critics), parts, Shown(crops, judged)

    def _pairs(self, batch: Batch, codes: Codes, plain: Tensor, edited: Tensor) -> dict[str, Pair]:
        """What is compared: pictures, their targets, and how both were moved.

        Args:
            batch: photos and what is known of them.
            codes: theirs.
            plain: float32 [B, 3, 256, 256], renders.
            edited: float32 [n + kept, 3, 256, 256], renders of edits.
        """
        n, photo, mask, theta = batch.samples, batch.target, batch.mask, batch.theta
        pairs = {"plain": (plain, seen(photo, plain, mask), theta)}
        if n:
            # The edited picture of a sample is known: compare the edited render, and the photo plus the change.
            pairs["edit"] = edited[:n], batch.edited, theta[:n]
            pairs["change"] = photo[:n] + (edited[:n] - plain[:n]), batch.edited, theta[:n]
        if n < len(theta):
            # Photos are drawn to what their coarse styles make, which is drawn to them; edits of them keep the person.
            base = self.paint(codes.base[n:], codes.w[n:].detach())
            pairs["base"] = base, seen(photo[n:], base, mask[n:]), theta[n:]
            some = slice(n, len(edited))
            pairs["keep"] = photo[some] + (edited[n:] - plain[some]), photo[some], theta[some]
        if not self.first_frozen:
            first = codes.first[2]
            pairs["first"] = first, seen(photo, first, mask), theta
        return pairs

    def _pictures(self, batch: Batch, pairs: dict[str, Pair]) -> tuple[Tensor, Parts]:
        """The loss of pictures, a scalar, and its parts."""

        def some(*names: str) -> dict[str, Pair]:
            return {name: pairs[name] for name in names if name in pairs}

        loss, shares, weights, n = self.loss, self.loss.shares, self.weights, batch.samples
        looks = together(lambda image, target, _: loss.looks(image, target), some("plain", "edit"))
        rough = together(lambda image, target, _: loss.rough(image, target), some("base", "first"))
        core = together(loss.closer, some("plain", "change"))
        eyes = together(loss.eyes, some("plain", "change"))
        person = together(loss.person, some("plain", "change", "base", "keep"))
        pixels = {name: loss.pixels(image, target) for name, (image, target, _) in pairs.items()}

        found = {"pixels": pixels["plain"], "looks": looks["plain"], "core": core["plain"], "person": person["plain"]}
        found["eyes"] = eyes["plain"]
        parts = {name: value[:n] for name, value in found.items() if n}
        parts |= {f"{name}_photo": value[n:] for name, value in found.items() if n < len(batch.theta)}
        total = found["pixels"] + shares.perceptual * found["looks"]
        total = total + shares.core * found["core"] + shares.person * found["person"] + shares.eyes * found["eyes"]
        terms = [total.mean()]
        if "edit" in pairs:
            parts["edit"] = pixels["edit"] + 2 * looks["edit"]
            parts["change"] = pixels["change"] + 2 * core["change"] + person["change"]
            parts["change"] = parts["change"] + shares.eyes * eyes["change"]
            terms += [weights.edit * parts["edit"].mean(), weights.change * parts["change"].mean()]
        if "base" in pairs:
            parts["base"] = pixels["base"] + 2 * rough["base"] + person["base"]
            parts["keep"] = F.relu(person["keep"] - SAME) * batch.person[n : n + len(person["keep"])]
            terms += [weights.base * parts["base"].mean(), weights.keep * parts["keep"].mean()]
        if "first" in pairs:
            parts["first"] = pixels["first"] + 2 * rough["first"]
            terms.append(weights.first * parts["first"].mean())
        return torch.stack(terms).sum(), parts

    def _anchors(self, batch: Batch, codes: Codes) -> tuple[Tensor, Parts]:
        """The codes of samples are known. No styles may be longer than theirs, and no f flatter."""
        looks, coarse, weights, n = self.looks, self.looks.coarse, self.weights, batch.samples
        far = F.relu(length(looks.normalise_w(codes.w), 2) - LONG).square().mean((1, 2))
        far = far + F.relu(length(looks.normalise_w(codes.w_coarse), 2) - LONG).square().mean((1, 2))
        far = far + F.relu(SHORT - length(looks.normalise_f(codes.f), (1, 2, 3))).square().flatten()
        parts: Parts = {"far": far}
        loss = weights.far * far.mean()
        if n:
            true_f, true_w = looks.normalise_f(batch.f), batch.w[:, coarse:]
            parts["anchor"] = (looks.normalise_f(codes.f[:n]) - true_f).square().mean()
            parts["styles"] = STYLES * self.styles_apart(codes.w[:n], true_w)
            parts["coarse"] = (looks.normalise_f(codes.base[:n]) - true_f).square().mean()
            loss = loss + weights.anchor * (parts["anchor"] + parts["styles"]) + weights.coarse * parts["coarse"]
            loss = loss + weights.coarse * STYLES * self.styles_apart(codes.w_coarse[:n], batch.w[:, :coarse])
            if not self.first_frozen:
                f1, w1 = codes.first[0], looks.denormalise_w(codes.first[1])
                first = (f1[:n] - true_f).square().mean() + STYLES * self.styles_apart(w1[:n], true_w)
                loss = loss + weights.first * weights.anchor * first
        return loss, parts

    def styles_apart(self, w: Tensor, true: Tensor) -> Tensor:
        """Mean square error of styles [B, n, 512] in standard deviations, a scalar."""
        apart = self.looks.normalise_w(w) - self.looks.normalise_w(true)
        return apart.square().clamp(max=FAR**2).mean()

    def codes_apart(self, photo: Tensor, f: Tensor, w: Tensor) -> Parts:
        """Errors of the codes after both looks, scalars.

        Args:
            photo: float32 [B, 3, 256, 256].
            f: float32 [B, C, cut, cut], true.
            w: float32 [B, m, 512], true.
        """
        looks, true = self.looks, self.looks.normalise_f(f)
        with half(self.device):
            f1, w1 = (x.float() for x in looks.look(photo))
        with torch.no_grad():
            painted = self.paint(looks.denormalise_f(f1), looks.denormalise_w(w1)).clamp(-1.5, 1.5)
        with half(self.device):
            f2, w2 = (x.float() for x in looks.look_again(photo, painted, f1.detach(), w1.detach()))
        parts = {}
        for name, found_f, found_w in (("1", f1, w1), ("2", f2, w2)):
            parts[f"f{name}"] = (found_f - true).square().mean()
            parts[f"w{name}"] = STYLES * self.styles_apart(looks.denormalise_w(found_w), w)
        return parts

    def _near(self, batch: Batch, codes: Codes) -> tuple[Tensor, Parts]:
        """The distance of a photo's f to what its coarse styles make, where the photo reaches.

        Above all, it draws the coarse styles: what they make has less contrast than a true f, and an f that is drawn to
        it loses its own, which styles far from all others then make up for.
        """
        n, looks = batch.samples, self.looks
        if n == len(batch.theta):
            return torch.zeros((), device=self.device), {}
        mask = batch.mask[n:]
        reach = F.avg_pool2d(mask, mask.shape[-1] // looks.cut)
        f = looks.normalise_f(codes.f[n:])
        f = YIELDS * f + (1 - YIELDS) * f.detach()
        apart = (f - looks.normalise_f(codes.base[n:])) * reach.sqrt()
        near = apart.square().mean() / reach.mean().clamp(min=0.1)
        return self.weights.near * near, {"near": near}

    def _natural(self, mask: Tensor, critic: CodeCritic, ours: Code) -> Tensor:
        """What the critic misses in photos' codes, where the photos reach: float32 [P]. Samples' codes are known."""
        patches, styles = critic(*ours)
        reach = F.avg_pool2d(mask, mask.shape[-1] // self.looks.cut)[:, :, 2:-2, 2:-2]
        score: Tensor = (patches * reach).sum((1, 2, 3)) / reach.sum((1, 2, 3)).clamp(min=1) + styles.mean(1)
        return -score
