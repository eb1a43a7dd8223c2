"""A generator and its loss on a device: runs jobs in batches, renders previews and judges results."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from assets.face_net import face_net
from assets.models import model_file
from assets.paths import build_dir, short_head_file
from assets.perceptual import lpips, stlpips, stlpips_file
from assets.yunet import yunet_file
from judges.identity import SFACE
from judges.reconstruction import Judge
from networks.close_ups import ffhq_square
from networks.detail import Detail
from networks.generator_file import Generator, generator_metadata, read_generator
from networks.learned_file import load_detail
from networks.looks_file import load_short_head
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.perceptual import STLPIPS
from networks.pixels import from_array, to_array
from networks.pnorm import PNorm, load_pnorm
from networks.precision import fast_half
from networks.short_head import ShortHead
from networks.similarity import inverse
from protocol.cuts import DEFAULT_CUT, W_PLUS
from protocol.limits import ContractError
from protocol.messages import State
from protocol.options import Options
from protocol.terms import Metrics, Terms
from sidecar.job import Image8, Job, Start
from sidecar.optimise.area import reduced
from sidecar.optimise.faces import NAMES as FACE_TERMS
from sidecar.optimise.faces import FaceTerms
from sidecar.optimise.frozen import freeze
from sidecar.optimise.optimisation import Optimisation, checked, checked_state
from sidecar.optimise.recipe import COARSE_TO_FINE, FULL, PAPER_WEIGHTS, Recipe, Stage, chosen
from sidecar.optimise.step import step
from sidecar.optimise.terms import Perceptual, Seen, Target, every_term, maybe_compiled

log = logging.getLogger("sidecar")

PREVIEW_SIZE = 256
LEARNED = Path(__file__).parents[2] / "networks" / "weights"
Device = Literal["auto", "cpu", "cuda"]
Loss = Literal["stlpips", "lpips"]


class EngineError(ValueError):
    """The engine cannot be built: weights are missing or do not match, or there is no such device."""


class TorchEngine:
    """The optimisation of BDInvert, section 3.3, for many photos at a time.

    On a GPU the jobs of a group run as one batch. On a CPU they take turns within each step: its cache holds the
    feature maps of one image, but not of several.

    Args:
        generator: a generator on the CPU.
        pnorm: its statistics.
        perceptual: the network of the loss.
        judge: compares results with photos.
        domain: what the generator shows.
        w_encoder: encoder into W+ for IDinvert's domain term; None if there is none.
        faces: networks of the terms of faces; None where the generator shows none.
        short: the short head and the perceptual network of its steps; None if there is none.
        device: where to optimise.
        compiled: whether to compile the step, which takes a minute or two at first.

    Attributes:
        generator: the fingerprint of its weights.
        domain, device: as above.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        pnorm: PNorm,
        perceptual: STLPIPS,
        judge: Judge,
        domain: str,
        device: torch.device,
        compiled: bool,
        w_encoder: Detail | None = None,
        faces: FaceTerms | None = None,
        short: tuple[ShortHead, STLPIPS] | None = None,
    ) -> None:
        self.domain, self.generator, self.device = domain, generator.fingerprint, device
        self._compiled = compiled
        self._synthesis = generator.synthesis.to(device)
        self._w_avg = generator.mapping.w_avg.to(device)
        self._pnorm = pnorm.to(device).requires_grad_(False)
        self._judge = judge
        perceptual = perceptual.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        encoder = None if w_encoder is None else w_encoder.to(device).requires_grad_(False)
        self._fast_half, why = fast_half(device)
        log.info("precision", extra={"half": "bfloat16" if self._fast_half else "float32", "because": why})
        self._head = None if short is None else short[0].to(device).requires_grad_(False)
        quick = None if short is None else short[1].to(device)
        self._perceptual = Perceptual(perceptual, quick)
        self._faces = faces
        if device.type == "cpu" and not (compiled or self._fast_half):
            known = (self._synthesis, perceptual, quick, *(() if faces is None else (faces.network, faces.face_net)))
            for network in known:
                if network is not None:
                    freeze(network)
        self._plain = every_term(perceptual, encoder, faces, compiled=False)
        self._terms = every_term(perceptual, encoder, faces, quick=quick, compiled=compiled)
        self._generate = maybe_compiled(self._image, compiled=compiled)
        self._paint = maybe_compiled(self._short_image, compiled=compiled)
        self._largest = None if device.type == "cuda" else 1
        self._pace: dict[Stage, float] = {}

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        return self._synthesis.size

    def open(self, start: Start, options: Options, resume: State | None = None) -> Optimisation:
        """A job at its start, or at ``resume`` (see ``Engine.open``)."""
        checked(start, self._synthesis)
        return self.begin(start, chosen(options, cut=start.f.shape[-1]), resume)

    def begin(self, start: Start, recipe: Recipe, resume: State | None = None) -> Optimisation:
        """Like :meth:`open`, with any recipe."""
        checked(start, self._synthesis)
        theta = self._face_of(start.target) if any(recipe.weights.get(name) for name in FACE_TERMS) else None
        if theta is None:
            recipe = replace(recipe, weights={n: w for n, w in recipe.weights.items() if n not in FACE_TERMS})
        weighed = {name for name, weight in recipe.weights.items() if weight}
        if weighed - {term.name for term in self._terms}:
            raise ContractError(f"the term domain needs an encoder into W+, and {self.domain} has none")
        stages = recipe.stages
        if self._head is None and any(stage.short for stage in stages):
            stages = COARSE_TO_FINE
        recipe = replace(recipe, stages=tuple(each for each in stages if (each.side or 0) < self.resolution))
        if resume is not None:
            checked_state(resume, start, recipe)
        lazy = frozenset(term.name for term in self._terms if term.lazy and term.name in weighed)
        return Optimisation(
            start, recipe, pnorm=self._pnorm, w_avg=self._w_avg, weighed=lazy, theta=theta, resume=resume
        )

    def run(self, jobs: Sequence[Job], steps: int) -> None:
        """Take up to ``steps`` steps with each job of one group (see ``Engine.run``)."""
        mine = cast("Sequence[Optimisation]", jobs)
        if len({job.group for job in mine}) > 1:
            raise ValueError("the jobs of one run must be of one group")
        for job in mine:
            job.mark()
        for _ in range(steps):
            going = [job for job in mine if job.reason is None]
            if not going:
                break
            began = time.perf_counter()
            size = self._largest or len(going)
            stages: dict[Stage, list[Optimisation]] = {}
            for job in going:
                stages.setdefault(job.stage, []).append(job)
            for stage, alike in stages.items():
                entered = time.perf_counter()
                for i in range(0, len(alike), size):
                    self._step(alike[i : i + size])
                self._pace[stage] = time.perf_counter() - entered
            spent = time.perf_counter() - began
            for job in going:
                job.spend(spent)
                job.stop_before(self._pace.get(job.stage, 0.0))

    def warm_up(self) -> None:
        """Take steps of the default preset in each stage, so that compilation, if any, comes before the first job."""
        if not self._compiled:
            return
        cut = 16
        f = np.zeros((self._synthesis.f_channels(cut), cut, cut), np.float32)
        w = self._w_avg.cpu().numpy()[None].repeat(self._synthesis.fine_styles(cut), axis=0)
        image = np.zeros((self.resolution, self.resolution, 3), np.uint8)
        start = Start(target=image, f=f, w_m_plus=w, f_o=f)
        recipe = self.open(start, Options()).recipe
        # The second step of full size, without compilation, says how long one takes.
        for stage, steps in ((FULL, 2), *((stage, 1) for stage in recipe.stages)):
            self.run([self.begin(start, replace(recipe, steps=steps, stages=(replace(stage, until=2.0),)))], steps)

    @torch.no_grad()
    def terms(self, start: Start, state: State) -> Terms:
        """The loss of the paper, with its weights, measured in float32."""
        f, w = self._tensors(state)
        seen = Seen(
            image=self._image(f, w, False),
            target=self._target(start.target, half=False),
            f=f,
            f_o=torch.from_numpy(start.f_o.copy()).to(f)[None],
            w_m_plus=w,
            v=self._pnorm(w),
            half=False,
        )
        found = {term.name: 0.0 if term.lazy else float(term(seen)) for term in self._plain}
        return Terms(total=sum(PAPER_WEIGHTS.get(name, 0.0) * value for name, value in found.items()), **found)

    def render(self, state: State) -> Image8:
        """What an inversion shows, uint8 [S, S, 3]."""
        return to_array(self._render(state, half=False))

    def preview(self, state: State) -> Image8:
        """What an inversion shows, uint8 [256, 256, 3]."""
        return to_array(reduced(self._render(state, half=True), PREVIEW_SIZE))

    def judge(self, start: Start, state: State) -> Metrics:
        """How good it is."""
        found = self._judge(start.target, self.render(state))
        return Metrics(
            stlpips_alex=found.stlpips_alex,
            psnr_256=found.psnr_256,
            psnr=found.psnr,
            identity=found.identity,
            landmarks=found.landmarks,
            face=None if found.face is None else bool(found.face),
            eyes=found.eyes,
        )

    def _step(self, jobs: Sequence[Optimisation]) -> None:
        """One step of each job, as one batch."""
        half = jobs[0].recipe.half and self._fast_half
        for job in jobs:
            if job.target is None or job.target[0] != job.stage:
                job.target = (job.stage, self._target(job.image, job.theta, half=half, stage=job.stage))
        step(jobs, self._paint if jobs[0].stage.short else self._generate, self._terms, half=half)

    def _target(self, image: Image8, theta: Tensor | None = None, *, half: bool, stage: Stage = FULL) -> Target:
        """What the terms keep of a photo, uint8 [S, S, 3], and of its face, which lies at ``theta``."""
        pixels = from_array(image, self.device)
        found = self._perceptual.target(pixels, stage, half=half)
        if theta is None:
            return found
        assert self._faces is not None
        return replace(found, face=self._faces.target(pixels, theta, stage, half=half))

    def _face_of(self, image: Image8) -> Tensor | None:
        """How the aligned face lies in a photo, float32 [1, 2, 3]; None without a face, or its networks."""
        face = None if self._faces is None else self._judge.face(image)
        if face is None:
            return None
        return inverse(ffhq_square(torch.from_numpy(face.landmarks / len(image)).float()[None])).to(self.device)

    def _short_image(self, f: Tensor, w_m_plus: Tensor, half: bool) -> Tensor:
        """What the short head makes of it: float32 [B, 3, 256, 256]; arguments as for :meth:`_image`."""
        assert self._head is not None and isinstance(self._synthesis, MobileStyleGAN)
        with torch.autocast(f.device.type, torch.bfloat16, enabled=half):
            painted: Tensor = self._head(self._synthesis.features(f, w_m_plus), w_m_plus[:, -LATE_STYLES:])
        return painted

    def _image(self, f: Tensor, w_m_plus: Tensor, half: bool) -> Tensor:
        """G's fine half: float32 [B, 3, S, S] of f [B, C, s, s] and w_M+ [B, styles, 512]."""
        with torch.autocast(f.device.type, torch.bfloat16, enabled=half):
            return self._synthesis.fine(f, w_m_plus).float()

    def _tensors(self, state: State) -> tuple[Tensor, Tensor]:
        """f [1, 512, s, s] and w_M+ [1, styles, 512] on the device."""
        f, w = (torch.from_numpy(x.copy()).to(self._w_avg)[None] for x in (state.f, state.w_m_plus))
        return f, w

    @torch.no_grad()
    def _render(self, state: State, *, half: bool) -> Tensor:
        """float32 [1, 3, S, S]."""
        f, w = self._tensors(state)
        return self._image(f, w, half and self._fast_half)


def load_engine(
    *, domain: str = "ffhq", device: Device = "auto", compiled: bool | None = None, perceptual: Loss = "stlpips"
) -> TorchEngine:
    """Load the engine of a domain from the build folder, which ``python -m export fetch --judges`` fills.

    Args:
        domain: which generator.
        device: ``auto`` is the GPU where there is one.
        compiled: None compiles where convolutions run in bfloat16 and there is a C++ compiler: in float32 on a CPU,
            compiled steps take as long as others.
        perceptual: network of the loss: ``stlpips``, or ``lpips`` where this machine has torchvision's VGG16.

    Raises:
        EngineError: weights are missing, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("this machine has no CUDA device: pass `--device cpu`")
    generator = build_dir() / "weights" / domain / "generator.safetensors"
    missing = [
        p
        for p in (generator, stlpips_file("vgg"), stlpips_file("alex"), yunet_file(), model_file(SFACE))
        if not p.exists()
    ]
    if missing:
        raise EngineError(f"cannot find `{missing[0]}`: run `python -m export fetch --judges`")
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if compiled is None:
        compiled = fast_half(where)[0] and any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    found = read_generator(generator)
    w_encoder = LEARNED / domain / f"detail{W_PLUS}.safetensors"
    head, short = short_head_file(domain, DEFAULT_CUT), None
    vgg, alex = stlpips("vgg"), stlpips("alex")
    faces = FaceTerms(alex.to(where), face_net().to(where)) if _shows_faces(generator) else None
    if head.exists():
        short = load_short_head(head, generator=found.fingerprint), alex
    return TorchEngine(
        found,
        pnorm=load_pnorm(LEARNED / domain / "pnorm.safetensors"),
        faces=faces,
        w_encoder=load_detail(w_encoder, generator=found.fingerprint) if w_encoder.exists() else None,
        perceptual=vgg if perceptual == "stlpips" else lpips(),
        # On a GPU the judge has its own networks: it runs on the CPU, beside the steps.
        judge=Judge(vgg, alex) if where.type == "cpu" else Judge(),
        domain=domain,
        device=where,
        compiled=compiled,
        short=short,
    )


def _shows_faces(generator: Path) -> bool:
    """Whether a generator's pictures are faces, as its import found."""
    return generator_metadata(generator).get("faces") == "true"
