"""A refinement on the command line: its options, its progress, and what is left of it when it is stopped."""

from __future__ import annotations

import argparse
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from client.api import Inverter
from client.commands.report import progress
from client.errors import ClientError, ParameterError, ServerUnavailable
from client.files.atomic import shown, write_all
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.sidecar.record import Refinement, RefineOptions
from client.sidecar.resume import Checkpoint, Refined, RefineEvent, Waiting
from protocol.messages import Preview, Progress, Queued
from protocol.methods import DEFAULT_PRESET
from protocol.options import RECORDED

T = TypeVar("T")
PREVIEW_EVERY: Final = 10
CHOICES: Final = (
    *(name for name in RECORDED if name != "weights"),
    *("weight", "preview", "refine_url", "patience"),
)
_RENDER_PAUSE = 0.5
_ENDS: Final = {
    None: "not finished",
    "steps": "all of them",
    "seconds": "the budget of seconds is used up",
    "target": "the target distance is reached",
}


def chosen(
    options: argparse.Namespace, recorded: RefineOptions | None = None, *, preset: str = DEFAULT_PRESET
) -> RefineOptions:
    """Return what the command line chooses, on top of what an inversion file records or of a method's ``preset``.

    Raises:
        ParameterError: a value is out of its range.
    """
    base = recorded or RefineOptions(preset=preset)
    names = (name for name in RECORDED if name != "weights")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    weights = {**base.weights, **dict(_weight(text) for text in options.weight or ())}
    wanted = replace(base, **given, weights=weights)
    return replace(wanted, preview_every=min(PREVIEW_EVERY, wanted.checkpoint_every)) if options.preview else wanted


def refuse_choices(options: argparse.Namespace) -> None:
    """Raise ``ParameterError`` where the command line chooses something for a refinement that there will not be."""
    without = "--fast leaves out" if options.fast else f"the method {options.method} has not"
    for name in CHOICES:
        # A batch waits for Triton, too.
        if getattr(options, name) is not None and not (options.command == "batch" and name == "patience"):
            raise ParameterError(f"The option --{name.replace('_', '-')} is for the refinement, which {without}.")


@contextmanager
def kept(path: Path) -> Iterator[list[Inversion]]:
    """Give a list; where the body is stopped, the list's last inversion is written to ``path`` and the message says so.

    Raises:
        KeyboardInterrupt, ClientError: what stopped the body, with another message where a file was written.
    """
    reached: list[Inversion] = []
    try:
        yield reached
    except (KeyboardInterrupt, ClientError) as problem:
        if not reached:
            raise
        with suppress(ValueError):
            # From here to the end of the command another Ctrl-C would only lose what is kept.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        write_all({path: reached[-1].encode()})
        told = f"{str(problem).rstrip('.') or 'Interrupted'}; {_whereabouts(reached[-1], path)}."
        raise type(problem)(told) from None


def refined(
    inverter: Inverter,
    inversion: Inversion,
    photo: Photo | str | None,
    options: argparse.Namespace,
    reached: list[Inversion],
    *,
    wanted: RefineOptions,
    keep_start: bool,
) -> Inversion:
    """Refine with a progress bar and previews.

    Args:
        inverter: asked to.
        inversion: what to refine.
        photo: what was inverted; None where the inversion holds it.
        options: of the command line.
        reached: gets what there is to keep, checkpoint by checkpoint, and the result at the end.
        wanted: options of the refinement.
        keep_start: whether the start, of which there is no file, is worth one.
    """
    preview = Path(options.preview) if options.preview else None
    events = inverter.refine(inversion, photo, wanted)
    keeps = keep_start
    with closing(events), progress("refining", None, options) as bar:
        for event in events:
            _show(event, bar)
            match event:
                case Preview() if preview is not None:
                    write_all({preview: event.jpeg})
                case Checkpoint() | Refined():
                    if keeps:
                        reached[:] = [event.inversion]
                    keeps = True
    return reached[-1]


def patiently(ask: Callable[[], T], *, seconds: float) -> T:
    """Return the answer, asking again for so long where Triton went away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except ServerUnavailable:
            if time.monotonic() + _RENDER_PAUSE >= deadline:
                raise
        time.sleep(_RENDER_PAUSE)


def account_lines(refinement: Refinement) -> list[str]:
    """Return the lines of a report that say what a refinement did."""
    lines = [f"  refined         {refinement.step} steps in {refinement.seconds:.1f} s ({_ENDS[refinement.reason]})"]
    if (found := refinement.metrics) is not None:
        measured = [
            f"ST-LPIPS (Alex) {found.stlpips_alex:.4f}",
            f"PSNR {found.psnr_256:.2f} dB ({found.psnr:.2f} dB at full size)",
        ]
        if found.identity is not None:
            measured.append(f"identity {found.identity:.3f}")
        if found.landmarks is not None:
            measured.append(f"landmarks {found.landmarks:.4f}")
        if found.face is not None:
            measured.append("a face is found" if found.face else "no face is found")
        lines.append(f"  measured        {', '.join(measured)}")
    return lines


def _weight(text: str) -> tuple[str, float]:
    name, separator, number = text.partition("=")
    try:
        return name, float(number if separator else "")
    except ValueError:
        raise ParameterError(f"A weight is name=value, for example perceptual=5, not '{shown(text)}'.") from None


def _show(event: RefineEvent, bar: Any) -> None:
    match event:
        case Queued(position):
            bar.set_description(f"queued after {position}")
        case Waiting():
            bar.set_description("waiting for the side-car")
        case Progress(step, steps, _, terms):
            if bar.total is None:
                # Steps of an earlier run say nothing about the speed of this one.
                bar.initial = bar.n = bar.last_print_n = step
            bar.total = steps
            bar.set_description("refining", refresh=False)
            bar.set_postfix({name: f"{value:.4g}" for name, value in vars(terms).items()}, refresh=False)
            bar.update(step - bar.n)
            bar.refresh()


def _whereabouts(inversion: Inversion, path: Path) -> str:
    where = shown(path, limit=4096)
    refinement = inversion.refinement
    if refinement is not None and refinement.reason is not None:
        return f"the refined inversion is in {where}, without its picture"
    step = refinement.step if refinement is not None else 0
    return f"the inversion of step {step} is in {where}: go on with `client refine {shlex.quote(where)}`"
