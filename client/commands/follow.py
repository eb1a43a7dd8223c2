"""A refinement on the command line: its progress, its previews, and what is kept of it when it is stopped."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.api import Inverter
from client.atomic import write_all
from client.commands.groups import OutputOptions, ServerOptions, connection
from client.commands.report import progress
from client.errors import ClientError
from client.exit_codes import Terminated
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.record import Refinement
from client.files.sheet import png
from client.sidecar.resume import Checkpoint, Refined, RefineEvent, Waiting
from client.text import shown
from client.wire.retry import retrying
from client.wire.timeout import Timeout
from protocol.messages import Preview, Progress, Queued
from protocol.verdict import verdict

T = TypeVar("T")
_ENDS: Final = {
    None: "not finished",
    "steps": "all of them",
    "seconds": "the time budget is used up",
    "target": "the target distance is reached",
}


class Reached:
    """The newest inversion worth keeping; None so far."""

    inversion: Inversion | None = None


@contextmanager
def kept(path: Path, render: Callable[[Inversion], NDArray[np.uint8]]) -> Iterator[Reached]:
    """Where the body is stopped, write the newest inversion to ``path``, and say so in the message.

    Its picture comes after it, where ``render`` answers soon.

    Raises:
        KeyboardInterrupt, ClientError: what stopped the body, with the longer message.
    """
    reached = Reached()
    try:
        yield reached
    except (KeyboardInterrupt, ClientError) as problem:
        if reached.inversion is None:
            raise
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):
                # From here to the end of the command another Ctrl-C would only lose what is kept.
                signal.signal(number, signal.SIG_IGN)
        write_all({path: reached.inversion.encode()})
        pictured = False
        with suppress(ClientError):
            picture = path.with_name(f"{stem_of(path.name, SUFFIX)}.reconstruction.png")
            write_all({picture: png(render(reached.inversion))})
            pictured = True
        default = "terminated" if isinstance(problem, Terminated) else "interrupted"
        what = str(problem).rstrip(".") or default
        raise type(problem)(f"{what}; {_whereabouts(reached.inversion, path, pictured=pictured)}") from problem


def soon(output: OutputOptions, server: ServerOptions) -> Callable[[Inversion], NDArray[np.uint8]]:
    """Return what renders an inversion within a few seconds, or raises a ``ServerError``."""

    def render(inversion: Inversion) -> NDArray[np.uint8]:
        timeout = Timeout(connect=min(2.0, server.timeout), request=min(5.0, server.timeout))
        with Inverter(**{**connection(output, server), "timeout": timeout}) as inverter:
            return inverter.render(inversion)

    return render


def follow(
    events: Generator[RefineEvent, None, None],
    reached: Reached,
    *,
    preview: Path | None,
    keep_start: bool,
    json: bool,
) -> Inversion:
    """Show a refinement's progress, write its previews, and return the result.

    Args:
        events: of ``Inverter.refine``.
        reached: holds the newest checkpoint, and the result at the end.
        preview: JPEG file of the current image.
        keep_start: whether the start, which is in no file yet, is worth keeping.
        json: hides the progress.
    """
    result: Inversion | None = None
    keeps = keep_start
    with closing(events), progress("refining", None, json=json) as bar:
        for event in events:
            _show(event, bar)
            match event:
                case Preview() if preview is not None:
                    write_all({preview: event.jpeg})
                case Checkpoint() | Refined():
                    result = event.inversion
                    if keeps:
                        reached.inversion = result
                    keeps = True
    assert result is not None, "the last event of a refinement is its result"
    return result


def patiently(ask: Callable[[], T], *, seconds: float) -> T:
    """Return the answer, asking again for so long where Triton went away."""
    return retrying(seconds)(ask)


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
            measured.append("face found" if found.face else "no face found")
        if found.eyes is not None:
            measured.append(f"eyes {found.eyes:.2f}")
        lines.append(f"  measured        {', '.join(measured)}")
        lines.append(f"  result          {verdict(found)}")
    if refinement.start_kept:
        lines.append("  kept            the start, because the refined result is worse: give it more seconds or steps")
    return lines


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


def _whereabouts(inversion: Inversion, path: Path, *, pictured: bool) -> str:
    where = shown(path, limit=4096)
    refinement = inversion.refinement
    if refinement is not None and refinement.reason is not None:
        return f"the refined inversion is in {where}{'' if pictured else ', without its picture'}"
    step = refinement.step if refinement is not None else 0
    return f"the inversion of step {step} is in {where}: continue with `client refine {shlex.quote(where)}`"
