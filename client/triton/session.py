"""What the client does with a server, as steps that either transport can drive (see ``client.transport``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from client.errors import (
    AnswerRefused,
    GeneratorMismatch,
    ModelMissing,
    ParameterError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.atomic import shown
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.files.photo import Crop, Photo
from client.triton.transport import (
    Array,
    AskConfig,
    AskLive,
    AskReady,
    AskServer,
    AskVersions,
    Infer,
    ModelConfig,
    ServerInfo,
    Steps,
    TensorSpec,
    Timeout,
    Work,
    persist,
)
from protocol import methods
from protocol.methods import DEFAULT_CUT, METHODS, W_PLUS, prefix
from protocol.roles import ROLES


def _version() -> str:
    try:
        return metadata.version("unaligned")
    except metadata.PackageNotFoundError:
        # Run from a checkout that is not installed.
        return "unknown"


MODELS: Final = tuple(ROLES)
# Of the other cuts, which a server may do without.
MORE: Final = tuple(name for name, role in ROLES.items() if role.each_cut)
MORE_CUTS: Final = tuple(cut for cut in (*methods.CUTS, W_PLUS) if cut != DEFAULT_CUT)
MAX_STRENGTHS: Final = 8
MAX_STRENGTH: Final = 100.0
MAX_SEED: Final = 2**63 - 1
VERSION: Final = _version()
Image8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class InversionResult:
    """An inversion and what it shows: ``reconstruction``, uint8 RGB [1024, 1024, 3]."""

    inversion: Inversion
    reconstruction: Image8


@dataclass(frozen=True)
class ModelStatus:
    """One model of the domain: served at all, ready, in which versions, and whether the default method needs it."""

    name: str
    served: bool
    ready: bool
    versions: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class Status:
    """The server as the client sees it; ``generator`` and ``cut`` are None where no model says them."""

    url: str
    server: ServerInfo
    live: bool
    ready: bool
    models: tuple[ModelStatus, ...]
    generator: str | None
    cut: int | None

    @property
    def usable(self) -> bool:
        """Whether every model that the default method needs is ready, on a ready server."""
        return self.live and self.ready and all(model.ready for model in self.models if model.needed)


class Session:
    """The conversation with one server about one domain; remembers what the server said about its models."""

    def __init__(self, url: str, *, domain: str, timeout: Timeout) -> None:
        if not (domain.isascii() and domain.isidentifier()):
            raise ParameterError(f"A domain is a name such as ffhq, not '{shown(domain)}'.")
        self.url = url
        self.domain = domain
        self.timeout = timeout
        self._reached = False
        self._server: ServerInfo | None = None
        self._configs: dict[str, ModelConfig] = {}

    def invert(
        self, photo: Photo, crop: Crop | None, *, method: str = methods.DEFAULT, cut: int | None = None
    ) -> Steps[InversionResult]:
        """Photo to the start of a method, and its reconstruction; by an encoder, in one request."""
        start, cut = checked_method(method, cut)
        square = photo.square(crop)
        config = yield from self._config("invert" if start == "encoder" else "encoder", cut)
        server = yield from self._info()
        size = _side(config, "image")
        pixels = yield Work(partial(photo.pixels, square, size))
        if start == "encoder":
            answer = yield from self._infer(config, {"image": pixels}, ("f", "w_m_plus", "reconstruction"))
        else:
            answer = yield from self._infer(config, {"image": pixels}, ("f",))
            answer |= yield from self._mean_styles(cut)
            fine = yield from self._config("fine", cut)
            code = {name: answer[name] for name in ("f", "w_m_plus")}
            answer["reconstruction"] = (yield from self._infer(fine, code, ("image",)))["image"]
        inversion = Inversion(
            f=answer["f"],
            w_m_plus=answer["w_m_plus"],
            f_o=answer["f"],
            generator=_generator(config),
            domain=self.domain,
            cut=_cut(config),
            crop=square,
            photo_size=photo.size,
            photo_sha256=photo.sha256,
            photo_name=photo.name,
            method=start,
            versions={"client": VERSION, "server": server.version},
        )
        return InversionResult(inversion, answer["reconstruction"])

    def _mean_styles(self, cut: int) -> Steps[dict[str, Any]]:
        """The mean of W as every style behind a cut: ``w_m_plus``, float32 [n, 512]."""
        mapping, fine = (yield from self._config("mapping")), (yield from self._config("fine", cut))
        z = np.ones(_spec(mapping, "z").dims, np.float32)
        drawn = yield from self._infer(mapping, {"z": z, "psi": np.zeros(1, np.float32)}, ("w",))
        return {"w_m_plus": np.repeat(drawn["w"][None], _spec(fine, "w_m_plus").dims[0], axis=0)}

    def render(self, inversion: Inversion) -> Steps[Image8]:
        """Inversion to image."""
        config = yield from self._config("fine", inversion.cut)
        self._require(inversion, config)
        answer = yield from self._infer(config, {"f": inversion.f, "w_m_plus": inversion.w_m_plus}, ("image",))
        image: Image8 = answer["image"]
        return image

    def image_side(self, inversion: Inversion) -> Steps[int]:
        """The side in pixels of the images that the inversion's generator makes."""
        config = yield from self._config("fine", inversion.cut)
        self._require(inversion, config)
        return _side(config, "image", output=True)

    def edit(self, inversion: Inversion, direction: Direction, strengths: Sequence[float]) -> Steps[Image8]:
        """Inversion to one image per strength."""
        steps = checked_strengths(strengths)
        config = yield from self._config("edit", inversion.cut)
        self._require(inversion, config)
        step = yield from self.step(inversion, direction)
        tensors = {"f": inversion.f, "w_m_plus": inversion.w_m_plus, "direction": step}
        images = []
        for start in range(0, len(steps), MAX_STRENGTHS):
            chunk = steps[start : start + MAX_STRENGTHS]
            answer = yield from self._infer(config, {**tensors, "strengths": chunk}, ("images",))
            if len(answer["images"]) != len(chunk):
                raise AnswerRefused(f"The server answered {len(chunk)} strengths with {len(answer['images'])} images.")
            images.append(answer["images"])
        edited: Image8 = np.concatenate(images)
        return edited

    def step(self, inversion: Inversion, direction: Direction) -> Steps[NDArray[np.float32]]:
        """What strength 1 of a direction adds to the inversion's styles, float32 [n, 512]."""
        config = yield from self._config("edit", inversion.cut)
        self._require(inversion, config)
        direction.require_generator(inversion.generator)
        return direction.step(before=_whole(config, "coarse_styles"), styles=len(inversion.w_m_plus))

    def generate(self, seed: int, psi: float) -> Steps[Image8]:
        """Seed to image: z to w to f to image."""
        if not 0 <= seed <= MAX_SEED:
            raise ParameterError(f"A seed is a whole number from 0 to {MAX_SEED}, not {seed}.")
        if not (math.isfinite(psi) and -2 <= psi <= 2):
            raise ParameterError(f"The truncation psi is a number from -2 to 2, not {psi:g}.")
        mapping = yield from self._config("mapping")
        coarse = yield from self._config("coarse")
        fine = yield from self._config("fine")
        if len({_generator(config) for config in (mapping, coarse, fine)}) > 1:
            raise GeneratorMismatch(
                f"The models of {self.domain} on the server at {self.url} belong to different generators."
            )
        z = np.random.default_rng(seed).standard_normal(_spec(mapping, "z").dims).astype(np.float32)
        drawn = yield from self._infer(mapping, {"z": z, "psi": np.array([psi], dtype=np.float32)}, ("w",))
        styles = {name: _spec(config, name).dims[0] for config, name in ((coarse, "w"), (fine, "w_m_plus"))}
        halves = yield from self._infer(coarse, {"w": np.repeat(drawn["w"][None], styles["w"], axis=0)}, ("f",))
        w_m_plus = np.repeat(drawn["w"][None], styles["w_m_plus"], axis=0)
        answer = yield from self._infer(fine, {"f": halves["f"], "w_m_plus": w_m_plus}, ("image",))
        image: Image8 = answer["image"]
        return image

    def status(self) -> Steps[Status]:
        """The server and the domain's models."""
        server = yield from self._info()
        seconds = self.timeout.request
        ready = yield from persist(AskReady(), seconds=seconds)
        models = []
        said: ModelConfig | None = None
        names = [(f"{self.domain}_{model}", True) for model in MODELS]
        names += [(f"{prefix(self.domain, cut)}_{model}", False) for cut in MORE_CUTS for model in MORE]
        for name, needed in names:
            try:
                versions = yield from persist(AskVersions(name), seconds=seconds)
                model_ready = yield from persist(AskReady(name), seconds=seconds)
                said = said or (yield from persist(AskConfig(name), seconds=seconds))
            except ModelMissing:
                if needed:
                    models.append(ModelStatus(name, served=False, ready=False, versions=()))
            else:
                models.append(ModelStatus(name, served=True, ready=model_ready, versions=versions, needed=needed))
        generator = cut = None
        if said is not None:
            generator, cut = _generator(said), _cut(said)
        return Status(self.url, server, live=True, ready=ready, models=tuple(models), generator=generator, cut=cut)

    def _reach(self) -> Steps[None]:
        if self._reached:
            return
        try:
            live = yield from persist(AskLive(), seconds=self.timeout.connect)
        except ServerTimeout:
            raise ServerUnavailable(
                f"No Triton server answered at {self.url} within {self.timeout.connect:g} seconds."
            ) from None
        if not live:
            raise ServerUnavailable(f"The server at {self.url} is starting or stopping, and not live.")
        self._reached = True

    def _info(self) -> Steps[ServerInfo]:
        yield from self._reach()
        if self._server is None:
            self._server = yield from persist(AskServer(), seconds=self.timeout.request)
        return self._server

    def _config(self, model: str, cut: int = DEFAULT_CUT) -> Steps[ModelConfig]:
        yield from self._reach()
        name = f"{prefix(self.domain, cut)}_{model}"
        if name not in self._configs:
            self._configs[name] = yield from persist(AskConfig(name), seconds=self.timeout.request)
        return self._configs[name]

    def _infer(
        self, config: ModelConfig, inputs: Mapping[str, Array], outputs: tuple[str, ...]
    ) -> Steps[dict[str, Any]]:
        for name, value in inputs.items():
            fault = _fault(value, _spec(config, name))
            if fault:
                raise ParameterError(f"The request for {config.name} would send '{name}' {fault}.")
        specs = {name: _spec(config, name, output=True) for name in outputs}
        batched = {name: value[None] for name, value in inputs.items()} if config.max_batch else inputs
        answer = yield from persist(Infer(config.name, batched, outputs), seconds=self.timeout.request)
        found: dict[str, Any] = {}
        for name, spec in specs.items():
            value = answer[name]
            if config.max_batch:
                if value.shape[:1] != (1,):
                    raise AnswerRefused(f"The server's answer from {config.name} has '{name}' for another batch.")
                value = value[0]
            fault = _fault(value, spec)
            if fault:
                raise AnswerRefused(f"The server's answer from {config.name} has '{name}' {fault}.")
            # The answer's bytes are read-only and shared by all of its tensors.
            found[name] = np.array(value)
        return found

    def _require(self, inversion: Inversion, config: ModelConfig) -> None:
        inversion.require_generator(_generator(config), domain=self.domain, cut=_cut(config))


def checked_method(method: str, cut: int | None) -> tuple[Literal["encoder", "mean"], int]:
    """The start of a method, and the cut at which its codes lie.

    Raises:
        ParameterError: there is no such method, or it has no such cut.
    """
    if method not in METHODS:
        raise ParameterError(f"There is no method '{shown(method, limit=40)}', only {', '.join(METHODS)}.")
    found = METHODS[method]
    if found.space == "W+":
        if cut is not None:
            raise ParameterError(f"The method {method} is of W+, which has no cut.")
        return found.start, W_PLUS
    if cut not in (None, *methods.CUTS):
        raise ParameterError(f"A cut is {' or '.join(map(str, methods.CUTS))}, not {cut}.")
    return found.start, cut or DEFAULT_CUT


def checked_strengths(strengths: Sequence[float]) -> NDArray[np.float32]:
    """Return the strengths as float32 [n]; raise ``ParameterError`` where one is not finite or out of range."""
    values = np.asarray(strengths, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ParameterError("An edit needs at least one strength.")
    if not (np.isfinite(values).all() and (np.abs(values) <= MAX_STRENGTH).all()):
        raise ParameterError(f"A strength is a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}.")
    return values.astype(np.float32)


def _fault(value: Array, spec: TensorSpec) -> str | None:
    """Say what is wrong with a tensor, or None."""
    if value.dtype != spec.dtype:
        return f"as {value.dtype}, not {spec.dtype}"
    fits = len(value.shape) == len(spec.dims) and all(d in (-1, n) for n, d in zip(value.shape, spec.dims, strict=True))
    if not fits:
        return f"of shape {list(value.shape)}, not {list(spec.dims)}"
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        return "with numbers that are not finite"
    return None


def _spec(config: ModelConfig, name: str, *, output: bool = False) -> TensorSpec:
    found = (config.outputs if output else config.inputs).get(name)
    if found is None:
        raise AnswerRefused(f"The served model {config.name} has no {'output' if output else 'input'} '{name}'.")
    return found


def _side(config: ModelConfig, name: str, *, output: bool = False) -> int:
    dims = _spec(config, name, output=output).dims
    if len(dims) != 3 or dims[0] != dims[1] or not 0 < dims[0] <= 4096:
        raise AnswerRefused(f"The served model {config.name} does not {'give' if output else 'take'} a square image.")
    return dims[0]


def _generator(config: ModelConfig) -> str:
    generator = config.parameters.get("generator", "")
    if not generator:
        raise AnswerRefused(f"The served model {config.name} does not say which generator it belongs to.")
    return shown(generator)


def _cut(config: ModelConfig) -> int:
    return _whole(config, "cut")


def _whole(config: ModelConfig, name: str) -> int:
    text = config.parameters.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise AnswerRefused(f"The served model {config.name} does not say where the generator is cut ({name}).")
    return int(text)
