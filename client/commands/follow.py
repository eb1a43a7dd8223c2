"""Refinements on the command line: their progress, their previews, and what is kept of them when they stop."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from tenacity import Retrying

from client.api import Inverter
from client.atomic import write_all
from client.commands.groups import OutputOptions, ServerOptions, connection
from client.commands.report import progress
from client.errors import ClientError
from client.exit_codes import described
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.record import Refinement
from client.files.sheet import png
from client.sidecar.resume import Checkpoint, Refined, RefineEvent, Waiting
from client.sidecar.together import Failed, Update
from client.text import listed, shown
from client.wire.retry import policy
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


@dataclass(frozen=True)
class Goal:
    """Where a refined inversion goes, and what it is called where there are several: nothing where there is one."""

    path: Path
    label: str = ""


@contextmanager
def kept(goals: Sequence[Goal], render: Callable[[Inversion], NDArray[np.uint8]]) -> Iterator[dict[Path, Inversion]]:
    """Where the body is stopped, write the newest inversions worth keeping, and say so in the message.

    The body puts them into what is yielded, by the paths of the ``goals``. Pictures come after them, where ``render``
    answers soon.

    Raises:
        KeyboardInterrupt, ClientError: what stopped the body, with the longer message.
    """
    reached: dict[Path, Inversion] = {}
    try:
        yield reached
    except (KeyboardInterrupt, ClientError) as problem:
        if not reached:
            raise
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):
                # From here to the end of the command another Ctrl-C would only lose what is kept.
                signal.signal(number, signal.SIG_IGN)
        found = {goal.path: reached[goal.path] for goal in goals if goal.path in reached}
        raise type(problem)(f"{described(problem)}; {stored(found, render)}") from problem


def stored(reached: Mapping[Path, Inversion], render: Callable[[Inversion], NDArray[np.uint8]]) -> str:
    """Write inversions, and their pictures where they come soon; return where they are and how to continue."""
    write_all({path: inversion.encode() for path, inversion in reached.items()})
    pictured = False
    with suppress(ClientError):
        for path, inversion in reached.items():
            picture = path.with_name(f"{stem_of(path.name, SUFFIX)}.reconstruction.png")
            write_all({picture: png(render(inversion))})
        pictured = True
    return _whereabouts(reached, pictured=pictured)


def soon(output: OutputOptions, server: ServerOptions) -> Callable[[Inversion], NDArray[np.uint8]]:
    """Return what renders an inversion within a few seconds, or raises a ``ServerError``."""

    def render(inversion: Inversion) -> NDArray[np.uint8]:
        timeout = Timeout(connect=min(2.0, server.timeout), request=min(5.0, server.timeout))
        with Inverter(**{**connection(output, server), "timeout": timeout}) as inverter:
            return inverter.render(inversion)

    return render


def follow(
    updates: Generator[Update, None, None],
    goals: Sequence[Goal],
    reached: dict[Path, Inversion],
    *,
    preview: Path | None,
    keep_start: bool,
    json: bool,
) -> list[Inversion | ClientError]:
    """Show the progress of refinements, write their previews, and return the result of each, or why it has none.

    Args:
        updates: the events of ``Inverter.refine_all``.
        goals: the goal of each refinement.
        reached: gets the newest checkpoints, and the results at the end, by their paths.
        preview: JPEG file of the current image; several get their labels into the name.
        keep_start: whether the starts, which are in no file yet, are worth keeping.
        json: hides the progress.
    """
    results: dict[int, Inversion | ClientError] = {}
    bars: dict[int, Any] = {}
    keeps = set(range(len(goals)) if keep_start else ())
    with closing(updates), ExitStack() as stack:
        for place, event in updates:
            goal = goals[place]
            if place not in bars:
                bars[place] = stack.enter_context(progress(_doing(goal, "refining"), None, json=json))
            _show(event, bars[place], goal)
            match event:
                case Preview() if preview is not None:
                    write_all({labelled(preview, goal): event.jpeg})
                case Checkpoint() | Refined():
                    if place in keeps:
                        reached[goal.path] = event.inversion
                    keeps.add(place)
            if isinstance(event, Refined | Failed):
                results[place] = event.inversion if isinstance(event, Refined) else event.problem
                bars[place].close()
    return [results[place] for place in range(len(goals))]


def patiently(ask: Callable[[], T], *, seconds: float) -> T:
    """Return the answer, asking again for so long where Triton went away."""
    return Retrying(**policy(seconds))(ask)


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


def _show(event: RefineEvent | Failed, bar: Any, goal: Goal) -> None:
    match event:
        case Queued(position):
            bar.set_description(_doing(goal, f"queued after {position}"))
        case Waiting():
            bar.set_description(_doing(goal, "waiting for the side-car"))
        case Progress(step, steps, _, terms):
            if bar.total is None:
                # Steps of an earlier run say nothing about the speed of this one.
                bar.initial = bar.n = bar.last_print_n = step
            bar.total = steps
            bar.set_description(_doing(goal, "refining"), refresh=False)
            bar.set_postfix({name: f"{value:.4g}" for name, value in vars(terms).items()}, refresh=False)
            bar.update(step - bar.n)
            bar.refresh()


def _doing(goal: Goal, what: str) -> str:
    return f"{goal.label}: {what}" if goal.label else what


def labelled(preview: Path, goal: Goal) -> Path:
    """Return the preview's file of a goal."""
    return preview.with_name(f"{preview.stem}.{goal.label}{preview.suffix}") if goal.label else preview


def _whereabouts(reached: Mapping[Path, Inversion], *, pictured: bool) -> str:
    refined: list[Path] = []
    steps: dict[Path, int] = {}
    for path, inversion in reached.items():
        if (refinement := inversion.refinement) is not None and refinement.reason is not None:
            refined.append(path)
        else:
            steps[path] = refinement.step if refinement is not None else 0
    found = []
    if refined:
        one = len(refined) == 1
        what, without = ("inversion is", "its picture") if one else ("inversions are", "all their pictures")
        where = listed([shown(path, limit=4096) for path in refined])
        found.append(f"the refined {what} in {where}{'' if pictured else f', without {without}'}")
    if steps:
        what = "inversion of step" if len(steps) == 1 else "inversions of steps"
        # As it has to be typed: `shown` makes one space of two.
        files = [str(path) if str(path).isprintable() else shown(path, limit=4096) for path in steps]
        numbers, verb = listed([str(step) for step in steps.values()]), "is" if len(steps) == 1 else "are"
        command = f"`client refine {' '.join(map(shlex.quote, files))}`"
        found.append(f"the {what} {numbers} {verb} in {listed(files)}: continue with {command}")
    return "; ".join(found)
