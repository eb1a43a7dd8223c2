"""The command line: ``client`` or ``python -m client``; see ``exit_codes`` for what it ends with.

A command's module is imported once the command is chosen, so that ``client --help`` loads neither NumPy nor gRPC.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn

from client.commands.options import add_options, read
from client.commands.text import PHOTOS
from client.errors import ClientError, ServerError
from client.exit_codes import (
    BAD_INPUT,
    BROKEN_PIPE,
    HELP,
    INTERRUPTED,
    SERVER_TROUBLE,
    TERMINATED,
    Terminated,
    described,
)
from client.text import quoted, reason
from client.version import version

# Each command, its module in `client.commands`, and its line in the help.
COMMANDS: Final = {
    "invert": ("invert", "Invert a photo: an inversion file, its picture, and a side-by-side sheet."),
    "faces": ("faces", "List the faces of a photo: number, place and size of each, and a picture of them."),
    "batch edit": ("batch", "Invert and edit many photos: a folder of results for each, a report, and a sheet."),
    "refine": ("refine", "Refine an inversion, or continue exactly where a refinement was interrupted."),
    "edit": ("edit", "Edit an inversion along a direction: a picture per strength, and a sheet."),
    "generate": ("generate", "Draw a sample of the generator."),
    "directions": ("directions", "List the directions that come with the package; needs no server."),
    "status": ("status", "Show what the server serves; exits with 3 unless every model is ready."),
}
GROUPS: Final = {"batch": "Work on many photos."}
_SHELLS: Final = ("bash", "zsh", "tcsh")
_FILES: Final = {"FILE", "PHOTO", "INVERSION", "WHICH"}


class Parser(argparse.ArgumentParser):
    """Argparse with a "did you mean" hint."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and a one-line error, and exit."""
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"error: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
        elif code := _print(message):
            raise SystemExit(code)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = _hint(str(value), map(str, action.choices))
            known = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid value {quoted(str(value))}{hint} (expected one of {known})")


class _Completion(argparse.Action):
    def __call__(self, called: Any, _namespace: Any, values: Any, _option: Any = None) -> None:
        import shtab

        whole = parser()
        for each in _parsers(whole):
            for action in each._actions:
                if action.metavar in _FILES or action.metavar == "DIR":
                    action.complete = shtab.FILE if action.metavar in _FILES else shtab.DIR  # type: ignore[attr-defined]
        called._print_message(shtab.complete(whole, values) + "\n", sys.stdout)
        called.exit()


class _Version(argparse.Action):
    def __call__(self, called: Any, _namespace: Any, _values: Any, _option: Any = None) -> None:
        called._print_message(f"{version()}\n", sys.stdout)
        called.exit()


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        only: the first word of the command whose options to add; by default those of all commands.
    """
    top = Parser(
        prog="client",
        description="Invert unaligned photos into a generator served by Triton, and edit them.",
        epilog=f"{PHOTOS} {HELP}",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    top.add_argument(
        "--print-completion", action=_Completion, choices=_SHELLS, help="print a completion script for a shell and exit"
    )
    subparsers = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    actions: dict[str, Any] = {}
    for name, (module, text) in COMMANDS.items():
        first, _, second = name.partition(" ")
        where = subparsers
        if second:
            if first not in actions:
                outer = subparsers.add_parser(first, help=GROUPS[first], description=GROUPS[first], epilog=HELP)
                actions[first] = outer.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
            where = actions[first]
        wanted = only in (None, first)
        loaded = import_module(f"client.commands.{module}") if wanted else None
        more = "" if loaded is None else loaded.MORE
        command = where.add_parser(second or first, help=text, description=f"{text} {more}".strip(), epilog=HELP)
        command.set_defaults(name=name)
        if loaded is not None:
            add_options(command, loaded.OPTIONS)
    return top


def parse(arguments: Sequence[str]) -> tuple[str, ModuleType, Any]:
    """Return the command's name, its module and its options; exits where the usage is wrong."""
    first = next((each for each in arguments if not each.startswith("-")), "")
    known = {name.partition(" ")[0] for name in COMMANDS}
    top = parser(first if first in known else "")
    if first and first not in known and not arguments[0].startswith("-"):
        top.error(f"unknown command {quoted(first)}{_hint(first, known)}")
    parsed, extra = top.parse_known_args(arguments)
    if extra:
        flags = {flag for each in _parsers(top) for action in each._actions for flag in action.option_strings}
        top.error(f"unexpected argument {quoted(extra[0])}{_hint(extra[0].partition('=')[0], flags)}")
    module = import_module(f"client.commands.{COMMANDS[parsed.name][0]}")
    return parsed.name, module, read(module.OPTIONS, parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: the words after ``client``; those of the process by default.
    """
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            # A terminal without Unicode gets escapes, not a traceback.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # gRPC's own log would clutter the one-line error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _signals():
            code, text = _run(typed)
    except KeyboardInterrupt as problem:
        code, text = _failed(problem, "--json" in typed, "")
    except SystemExit as end:
        raise SystemExit(_print("") or end.code) from end
    return _print(text) or code


def _open_streams() -> None:
    """Replace standard streams that are closed: their numbers would go to the next files that are opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Writing to a standard output that is closed fails, as to a full one.
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command; return its exit code, and what goes to the standard output."""
    name, module, options = parse(arguments)
    from client.wire.request_id import SERVICE, named
    from protocol.tracing import tracing

    as_json = options.output.json
    with named() as request:
        try:
            with tracing(SERVICE).span(f"client {name}", request_id=request):
                report = module.run(options)
        except (ClientError, KeyboardInterrupt) as problem:
            return _failed(problem, as_json, request)
    return int(report.code), (json.dumps(report.data) if as_json else "\n".join(report.lines)) + "\n"


def _failed(problem: BaseException, as_json: bool, request: str) -> tuple[int, str]:
    kind, code, message = type(problem).__name__, BAD_INPUT, str(problem) or described(problem)
    match problem:
        case ServerError():
            code = SERVER_TROUBLE
        case Terminated():
            code = TERMINATED
        case KeyboardInterrupt():
            kind, code = "Interrupted", INTERRUPTED
    with suppress(OSError):
        print(f"error: {message}", file=sys.stderr, flush=True)
    return code, json.dumps({"error": {"kind": kind, "message": message, "request": request}}) + "\n" if as_json else ""


def _print(text: str) -> int:
    """Write to the standard output, and return 0 or the exit code for what went wrong."""
    if not text:
        return 0
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except OSError as problem:
        code = BAD_INPUT
        with suppress(OSError):
            print(f"error: cannot write to the standard output: {reason(problem)}", file=sys.stderr, flush=True)
    else:
        return 0
    # The interpreter flushes once more at its end, and would complain.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM as Ctrl-C, while the block runs; afterwards both are what they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError, TypeError):
                # A refinement that is stopped turns Ctrl-C off until its file is written.
                signal.signal(number, handler)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _hint(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f": did you mean {quoted(close[0])}?" if close else ""


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)
