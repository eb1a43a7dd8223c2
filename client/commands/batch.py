"""``client batch edit``: what it was asked for, against what the ledger says was begun."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from client.api import AsyncInverter
from client.batch import cluster, report
from client.batch.cluster import Job
from client.batch.ledger import Ledger
from client.batch.maker import Maker
from client.batch.manifest import Shard, items
from client.batch.pipeline import Pipeline
from client.batch.plan import Plan
from client.commands.invert import parsed_edit, preset_of
from client.commands.refining import chosen
from client.commands.report import FAILED, OK, Report, connection, distinct, progress, timeout
from client.errors import ClientError, ParameterError
from client.files.atomic import shown, write_all


def edit(options: argparse.Namespace) -> Report:
    """Invert and edit what is left of a batch."""
    if not 1 <= options.concurrency <= 256:
        raise ParameterError(f"The number of photos at a time is from 1 to 256, not {options.concurrency}.")
    if not 1 <= options.workers <= 1024:
        raise ParameterError(f"The number of workers is from 1 to 1024, not {options.workers}.")
    shard = Shard.parse(options.shard) if options.shard else Shard()
    plan, folder = _plan(options), Path(options.out)
    part = "" if shard.count == 1 else f"-{shard.index}-of-{shard.count}"
    with Ledger(folder / f"ledger{part}.sqlite") as ledger:
        _open(ledger, plan, options, shard)
        if options.retry_failed:
            ledger.retry_failed()
        began, before = time.monotonic(), ledger.counts()
        with progress("photos", sum(before.values()), options) as bar:
            bar.n = bar.initial = bar.last_print_n = sum(before.values()) - before["pending"]
            job = Job(plan, folder, connection(options), timeout(options).patience, options.concurrency)
            _run(job, ledger, options, bar.update)
        after = ledger.counts()
        found = report.account(ledger, seconds=time.monotonic() - began, made=after["done"] - before["done"])
        files = {folder / f"report{part}.json": json.dumps(found, indent=1).encode()}
        if sheet := report.contact_sheet(ledger, plan, folder):
            files[folder / f"sheet{part}.jpg"] = sheet
        write_all(files)
    return Report(found, report.lines(found, folder), FAILED if after["failed"] else OK)


def _run(job: Job, ledger: Ledger, options: argparse.Namespace, progress: Callable[[], object]) -> None:
    """Run the engine; what stops it is told with what is left.

    Raises:
        KeyboardInterrupt, ClientError: with another message.
    """

    async def work() -> None:
        maker = Maker(job.plan, job.folder, patience=job.patience)
        async with AsyncInverter(**job.connection) as inverter:
            await Pipeline(maker, ledger, progress=progress).run(inverter, concurrency=job.concurrency)

    try:
        if options.engine == "ray":
            cluster.run(job, ledger, workers=options.workers, address=options.address, progress=progress)
        else:
            asyncio.run(work())
    except (KeyboardInterrupt, ClientError) as problem:
        counts = ledger.counts()
        what = str(problem).rstrip(".") or "Interrupted"
        told = f"{what}; {counts['done']} of {sum(counts.values())} photos are done"
        raise type(problem)(f"{told}: go on by the same command with --resume.") from None


def _plan(options: argparse.Namespace) -> Plan:
    edits = [parsed_edit(text, options.domain) for text in options.edit]
    preset = preset_of(options)
    return Plan(
        edits=tuple(
            (_source(text), tuple(distinct(found[1]))) for text, found in zip(options.edit, edits, strict=True)
        ),
        domain=options.domain,
        method=options.method,
        cut=options.cut,
        refine=None if preset is None else chosen(options, preset=preset),
        format=options.format,
    )


def _source(text: str) -> str:
    """The direction of ``NAME=S,S``, as it was typed."""
    return text.rpartition("=")[0]


def _open(ledger: Ledger, plan: Plan, options: argparse.Namespace, shard: Shard) -> None:
    """Begin a batch, or go on with one.

    Raises:
        ParameterError: there is one already, none to go on with, another one, or no photo.
    """
    where, wanted = shown(options.out), {"photos": options.photos, **json.loads(json.dumps(plan.account()))}
    begun = ledger.plan
    if begun is None:
        if options.retry_failed:
            raise ParameterError(f"There is no batch in {where} to go on with.")
        if not ledger.begin(wanted, items(options.photos, shard)):
            raise ParameterError(
                f"There is no photo in {shown(options.photos)}{' for this shard' * (shard.count > 1)}."
            )
        return
    if not (options.resume or options.retry_failed):
        raise ParameterError(f"There is a batch in {where} already: --resume goes on with it.")
    for name, value in wanted.items():
        if begun.get(name) != value:
            raise ParameterError(f"The batch in {where} was begun with another choice of {name}; use another --out.")
