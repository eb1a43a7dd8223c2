"""The groups of options that commands share, and what they stand for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, get_args

from client.commands.options import option, repeated, switch
from client.errors import ParameterError
from client.files.formats import FORMATS, Format, Show
from client.files.record import RefineOptions
from client.frames.choice import Wanted
from client.frames.frame import Frame
from client.text import quoted
from client.triton.checks import checked_method
from client.wire.defaults import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL
from client.wire.settings import Endpoints, endpoints
from client.wire.timeout import Timeout
from protocol.cuts import CUTS, DEFAULT_CUT
from protocol.methods import DEFAULT, DEFAULT_PRESET, METHODS, PRESETS
from protocol.options import LIMITS, RECORDED, WEIGHT
from protocol.terms import TERMS

PREVIEW_EVERY: Final = 10
EDIT: Final = "NAME=S,S"
FRAME: Final = (
    "auto (the face, aligned as FFHQ's are; the centred square without a face), aligned, upright (aligned, but not "
    "rotated), square (the largest centred one), or x,y,size in pixels of the photo as shown (default: auto)"
)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What a command prints."""

    domain: str = option(
        "--domain", f"which generator to use (default: {DEFAULT_DOMAIN})", default=DEFAULT_DOMAIN, metavar="NAME"
    )
    json: bool = switch("--json", "print one JSON object instead of text, also for errors")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How to reach the servers."""

    url: str | None = option(
        "--url", f"Triton's gRPC endpoint (default: $UNALIGNED_URL, else {DEFAULT_URL})", metavar="HOST:PORT"
    )
    timeout: float = option(
        "--timeout",
        f"deadline for each request, retries included (default: {Timeout().request:g})",
        default=Timeout().request,
        type=float,
        metavar="SECONDS",
    )
    tls: bool | None = option(
        "--tls", "connect with TLS (implied by the next three; $UNALIGNED_TLS=1)", action="store_const", const=True
    )
    tls_ca: str | None = option("--tls-ca", "PEM file of the CAs to trust ($UNALIGNED_TLS_CA)", metavar="FILE")
    tls_cert: str | None = option("--tls-cert", "PEM certificate of the client ($UNALIGNED_TLS_CERT)", metavar="FILE")
    tls_key: str | None = option("--tls-key", "PEM key of that certificate ($UNALIGNED_TLS_KEY)", metavar="FILE")
    token: str | None = option(
        "--token", "sent with every request; @FILE reads it from a file ($UNALIGNED_TOKEN)", metavar="TOKEN"
    )
    config: str | None = option(
        "--config",
        "TOML file with any of url, refine-url, tls, tls-ca, tls-cert, tls-key and token; flags and variables come "
        "first (default: $UNALIGNED_CONFIG, else ~/.config/unaligned/client.toml if it exists)",
        metavar="FILE",
    )

    def endpoints(self, refine_url: str | None = None) -> Endpoints:
        """Return the addresses and the access, from flags, environment and configuration file."""
        return endpoints({**vars(self), "refine_url": refine_url})


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """What the pictures of edits show, and their format."""

    show: Show = option(
        "--show",
        "what an edit shows: the whole photo with the change in it, or the generator's picture (default: photo)",
        default="photo",
        choices=get_args(Show),
    )
    format: Format = option(
        "--format", "format of the edits' pictures (default: png)", default="png", choices=tuple(FORMATS)
    )


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which square of the photo to invert."""

    frame: str | None = option("--frame", FRAME, metavar="FRAME")
    face: str | None = option(
        "--face", "largest, all, or a number of `client faces` (default: largest)", metavar="FACE"
    )
    crop: str | None = option("--crop", "same as --frame X,Y,SIZE", metavar="X,Y,SIZE")

    def wanted(self) -> Wanted:
        """Return what was asked for.

        Raises:
            ParameterError, PhotoError: there is no such frame or face, or two frames were given.
        """
        if self.crop is None:
            return Wanted.parse(self.frame, self.face)
        if self.frame is not None:
            raise ParameterError("--crop and --frame both say which square to invert: pass one of them")
        if self.face is not None:
            raise ParameterError("--crop needs no --face: pass one of them")
        return Wanted(Frame.parse_crop(self.crop))


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Which method makes the inversion."""

    fast: bool = switch("--fast", "one pass of the networks: one request, no side-car, no refinement")
    method: str = option(
        "--method",
        f"{', '.join(f'{name} ({method.space})' for name, method in METHODS.items())} (default: {DEFAULT})",
        default=DEFAULT,
        choices=tuple(METHODS),
    )
    cut: int | None = option(
        "--cut",
        f"side of f, for {DEFAULT} (default: {DEFAULT_CUT}; 8 is easier to edit)",
        type=int,
        choices=tuple(CUTS),
    )

    def preset(self, refinement: RefinementOptions, *, allowed: tuple[str, ...] = ()) -> str | None:
        """Return the recipe of the method; None without a refinement, where only the ``allowed`` flags make sense.

        Raises:
            ParameterError: the method has no such cut, cannot run without refinement, or flags of a refinement were
                given without one.
        """
        checked_method(self.method, self.cut)
        method = METHODS[self.method]
        if not self.fast and method.preset is not None:
            return method.preset
        if method.start == "mean":
            raise ParameterError(f"--fast does nothing with --method {self.method}, which has no encoder")
        for flag in refinement.given():
            if flag in allowed:
                continue
            why = "--fast" if self.fast else f"--method {self.method}"
            raise ParameterError(f"{flag} is for the refinement, which {why} leaves out")
        return None


@dataclass(frozen=True, kw_only=True)
class RefinementOptions:
    """What to refine, how long, and on which side-car."""

    preset: str | None = option("--preset", f"the recipe: {', '.join(PRESETS)} (default: the method's)", metavar="NAME")
    steps: int | None = option(
        "--steps",
        f"steps of the whole refinement, up to {LIMITS['steps'].high} (default: the recipe's)",
        type=int,
        metavar="N",
    )
    seconds: float | None = option(
        "--seconds",
        f"time budget of the optimisation, up to {LIMITS['seconds'].high}, over all attempts, and for all faces of a "
        "photo together (default: none)",
        type=float,
        metavar="S",
    )
    target: float | None = option(
        "--target",
        f"stop once the perceptual distance is at most this, up to {LIMITS['target'].high} (default: never)",
        type=float,
        metavar="D",
    )
    weight: tuple[str, ...] = repeated(
        "--weight",
        f"weight of a loss term ({', '.join(TERMS)}), up to {WEIGHT.high:g}; repeatable (default: the recipe's)",
        metavar="NAME=VALUE",
    )
    clip: float | None = option(
        "--clip",
        f"keep every number of P-norm+(w_M+) within +-V, up to {LIMITS['clip'].high}, instead of the term p_norm "
        "(default: off)",
        type=float,
        metavar="V",
    )
    checkpoint_every: int | None = option(
        "--checkpoint-every",
        "steps between checkpoints: the most that a killed side-car costs "
        f"(default: {RefineOptions().checkpoint_every})",
        type=int,
        metavar="N",
    )
    preview: str | None = option(
        "--preview",
        f"JPEG file of the current image, replaced every {PREVIEW_EVERY} steps and at each checkpoint; of several "
        "faces, one each, named FILE.face-N (default: none)",
        metavar="FILE",
    )
    refine_url: str | None = option(
        "--refine-url",
        f"the side-car's gRPC endpoint (default: $UNALIGNED_REFINE_URL, else {DEFAULT_REFINE_URL})",
        metavar="HOST:PORT",
    )
    patience: float | None = option(
        "--patience",
        "how long to wait for a side-car that went away, is starting or is full, or for a Triton that went away "
        f"(default: {Timeout().patience:g})",
        type=float,
        metavar="SECONDS",
    )

    def given(self) -> list[str]:
        """Return the flags that were given."""
        names = (name for name, value in asdict(self).items() if value not in (None, ()))
        return [f"--{name.replace('_', '-')}" for name in names]

    def chosen(self, recorded: RefineOptions | None = None, *, preset: str = DEFAULT_PRESET) -> RefineOptions:
        """Return what was given, on top of what an inversion records or of a method's ``preset``.

        Raises:
            ParameterError: a value is out of range.
        """
        base = recorded or RefineOptions(preset=preset)
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if name in RECORDED}
        weights = {**base.weights, **dict(map(_weight, self.weight))}
        wanted = replace(base, **{key: v for key, v in given.items() if v is not None}, weights=weights)
        return replace(wanted, preview_every=min(PREVIEW_EVERY, wanted.checkpoint_every)) if self.preview else wanted


def deadlines(server: ServerOptions, refinement: RefinementOptions | None = None) -> Timeout:
    """Return the deadlines that the flags name."""
    waits = None if refinement is None else refinement.patience
    return Timeout(
        connect=min(Timeout().connect, server.timeout),
        request=server.timeout,
        patience=Timeout().patience if waits is None else waits,
    )


def connection(
    output: OutputOptions, server: ServerOptions, refinement: RefinementOptions | None = None, *, refines: bool = False
) -> dict[str, Any]:
    """Return the arguments of an inverter; where nothing is refined, the side-car's address does not matter."""
    found = server.endpoints(None if refinement is None else refinement.refine_url)
    side = {"refine_url": found.refine_url} if refines else {}
    timeout = deadlines(server, refinement)
    return {"url": found.url, "domain": output.domain, "timeout": timeout, "access": found.access, **side}


def _weight(text: str) -> tuple[str, float]:
    name, separator, number = text.partition("=")
    try:
        return name, float(number if separator else "")
    except ValueError as problem:
        raise ParameterError(
            f"invalid --weight {quoted(text)}: expected name=value, for example perceptual=5"
        ) from problem
