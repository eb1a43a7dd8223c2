"""``client batch edit``: starts a batch, or continues the one in a ledger."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from client.atomic import sweep, write_all
from client.batch import cluster, pipeline, report
from client.batch.ledger import Ledger
from client.batch.maker import Assignment
from client.batch.manifest import Shard, items, left_out
from client.batch.plan import Plan
from client.commands.groups import (
    EDIT,
    FRAME,
    MethodOptions,
    OutputOptions,
    RefinementOptions,
    ServerOptions,
    connection,
    deadlines,
)
from client.commands.options import group, option, repeated, required, switch
from client.commands.report import Report, distinct, parsed_edit, progress
from client.commands.text import ACCESS, PHOTOS
from client.errors import ClientError, OutputError, ParameterError
from client.exit_codes import FAILED, OK, described
from client.files.formats import FORMATS, Format, Show
from client.frames.choice import ALL, LARGEST, Wanted
from client.text import quoted

MORE = (
    "A ledger in DIR records what is done. After a stop or a kill, --resume continues the batch, and does no photo "
    f"twice. {PHOTOS}"
)


@dataclass(frozen=True, kw_only=True)
class BatchFlags:
    """The options of ``client batch edit``."""

    photos: str = required(
        "--photos",
        'a folder, a pattern in quotes, or a .jsonl file of objects with "photo" and optionally "crop" and "name"',
        metavar="WHICH",
    )
    out: str = required("--out", "folder of the results, the ledger, the report and the sheet", metavar="DIR")
    edit: tuple[str, ...] = repeated(
        "--edit",
        "edit along a direction, a name or a .safetensors file, by these strengths; repeatable (age=-2,2)",
        metavar=EDIT,
    )
    resume: bool = switch("--resume", "continue the batch in DIR, if there is one; the options must be the same")
    retry_failed: bool = switch("--retry-failed", "continue, and retry failed photos")
    shard: str | None = option(
        "--shard", "only every N-th photo from the I-th on (0/N to N-1/N), with its own ledger", metavar="I/N"
    )
    concurrency: int = option(
        "--concurrency", "photos at a time, up to 256 (default: 4)", default=4, type=int, metavar="N"
    )
    frame: str | None = option("--frame", FRAME, metavar="FRAME")
    faces: str = option(
        "--faces",
        "of each photo: the largest, or all, whose edits come in one picture (default: largest)",
        default=LARGEST,
        choices=(LARGEST, ALL),
    )
    format: Format = option("--format", "of the pictures (default: jpeg)", default="jpeg", choices=tuple(FORMATS))
    show: Show = option(
        "--show",
        "what an edit shows: the whole photo with the change in it, or the generator's picture (default: photo)",
        default="photo",
        choices=get_args(Show),
    )
    engine: str = option(
        "--engine", "this process, or a Ray cluster (default: local)", default="local", choices=("local", "ray")
    )
    address: str | None = option(
        "--address",
        "of the Ray cluster, whose workers share the file system of photos and results, or local to start one here "
        "(default: $RAY_ADDRESS)",
        metavar="ADDR",
    )
    workers: int = option(
        "--workers", "of Ray, each with --concurrency photos (default: 2)", default=2, type=int, metavar="N"
    )
    output: OutputOptions = group(OutputOptions)
    method: MethodOptions = group(MethodOptions, "method")
    refinement: RefinementOptions = group(RefinementOptions, "refinement")
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = BatchFlags
# What batches did before these options existed.
_FORMER: Final = {"frame": "square", "faces": LARGEST, "show": "render"}


def run(options: BatchFlags) -> Report:
    """Invert and edit what is left of a batch."""
    if not 1 <= options.concurrency <= 256:
        raise ParameterError(f"invalid --concurrency {options.concurrency}: expected 1 to 256 photos at a time")
    if not (options.photos and options.out):
        # An unset variable of a script is not this folder.
        raise ParameterError(f"{'--out' if options.photos else '--photos'} is empty: expected a name")
    if not 1 <= options.workers <= 1024:
        raise ParameterError(f"invalid --workers {options.workers}: expected 1 to 1024")
    shard = Shard.parse(options.shard) if options.shard else Shard()
    plan, folder = _plan(options), Path(options.out)
    part = _part(shard)
    with Ledger(folder / f"ledger{part}.sqlite") as ledger:
        _open(ledger, plan, options, shard)
        if shard.count == 1:
            sweep(folder)
        if options.retry_failed:
            ledger.retry_failed()
        began, before = time.monotonic(), ledger.counts()
        with progress("photos", sum(before.values()), json=options.output.json) as bar:
            bar.n = bar.initial = bar.last_print_n = sum(before.values()) - before["pending"]
            assignment = Assignment(
                plan,
                folder,
                connection(options.output, options.server, options.refinement, refines=not options.method.fast),
                deadlines(options.server, options.refinement).patience,
                options.concurrency,
            )
            _make(assignment, ledger, options, bar.update)
        if shard.count == 1:
            # A worker of the cluster that died left what it was writing.
            sweep(folder)
        after = ledger.counts()
        found = report.account(
            ledger,
            seconds=time.monotonic() - began,
            made=after["done"] - before["done"],
            left_out=left_out(options.photos),
        )
        files = {folder / f"report{part}.json": json.dumps(found, indent=1).encode()}
        if sheet := report.contact_sheet(ledger, plan, folder):
            files[folder / f"sheet{part}.jpg"] = sheet
        write_all(files)
    return Report(found, report.lines(found, folder), FAILED if after["failed"] else OK)


def _make(assignment: Assignment, ledger: Ledger, options: BatchFlags, progress: Callable[[], object]) -> None:
    """Run the engine; if it is stopped, the message says how much is left.

    Raises:
        KeyboardInterrupt, ClientError: with another message.
    """
    try:
        if options.engine == "ray":
            cluster.run(assignment, ledger, workers=options.workers, address=options.address, progress=progress)
        else:
            asyncio.run(pipeline.run(assignment, ledger, progress=progress))
    except (KeyboardInterrupt, ClientError) as problem:
        counts = ledger.counts()
        raise type(problem)(
            f"{described(problem)}; {counts['done']} of {sum(counts.values())} photos are done: continue with the same "
            "command and --resume"
        ) from problem


def _plan(options: BatchFlags) -> Plan:
    edits = [parsed_edit(text, options.output.domain) for text in options.edit]
    preset = options.method.preset(options.refinement, allowed=("--patience",))
    wanted = Wanted.parse(options.frame, options.faces if options.faces != LARGEST else None, flag="--faces")
    if wanted.face == ALL and options.show == "render":
        raise ParameterError("--faces all puts all edits into the photo: leave --show render out")
    return Plan(
        edits=tuple(
            (text.rpartition("=")[0], tuple(distinct(found[1])))
            for text, found in zip(options.edit, edits, strict=True)
        ),
        domain=options.output.domain,
        method=options.method.method,
        cut=options.method.cut,
        refine=None if preset is None else options.refinement.chosen(preset=preset),
        format=options.format,
        show=options.show,
        wanted=wanted,
    )


def _part(shard: Shard) -> str:
    """Return what the names of a shard's own files end with."""
    return "" if shard.count == 1 else f"-{shard.index}-of-{shard.count}"


def _refuse_to_replace(options: BatchFlags, shard: Shard) -> None:
    """Refuse to begin a batch over files that it did not make.

    Raises:
        OutputError: there are some.
    """
    folder, part = Path(options.out), _part(shard)
    own = (folder / f"report{part}.json", folder / f"sheet{part}.jpg")
    for path in (*own, *(folder / item.name for item in items(options.photos, shard))):
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise OutputError(f"{quoted(path)} already exists, but no ledger of it: use another --out")


def _open(ledger: Ledger, plan: Plan, options: BatchFlags, shard: Shard) -> None:
    """Begin a batch, or continue one.

    Raises:
        ParameterError: there already is a batch, there is none to continue, its options differ, or there is no photo.
    """
    where = quoted(options.out)
    wanted: dict[str, Any] = {"photos": options.photos, **json.loads(json.dumps(plan.account()))}
    begun = ledger.plan
    if begun is None:
        if options.retry_failed:
            raise ParameterError(f"no batch in {where} to continue")
        _refuse_to_replace(options, shard)
        if not ledger.begin(wanted, items(options.photos, shard)):
            raise ParameterError(f"no photo in {quoted(options.photos)}{' for this shard' * (shard.count > 1)}")
        return
    if not (options.resume or options.retry_failed):
        raise ParameterError(f"{where} already contains a batch: pass --resume to continue it")
    for name, value in wanted.items():
        if begun.get(name, _FORMER.get(name, value if name == "digests" else None)) != value:
            raise ParameterError(f"the batch in {where} was started with different options ({name}): use another --out")
