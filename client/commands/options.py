"""Options as data: each command has a frozen dataclass, and argparse is built from its fields."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")
REQUIRED: Any = dataclasses.MISSING


def option(flag: str, text: str, *, default: Any = None, **arguments: Any) -> Any:
    """Return a field for one flag or one positional argument.

    Args:
        flag: ``--name``, or the metavar of a positional argument.
        text: the line in ``--help``.
        default: the field's default, or ``REQUIRED``.
        arguments: for ``add_argument``: ``type``, ``choices``, ``metavar``, ``action``.
    """
    metadata = {"flag": flag, "arguments": {"help": text, **arguments}}
    return dataclasses.field(default=default, metadata=metadata)


def required(flag: str, text: str, **arguments: Any) -> Any:
    """Return :func:`option` without a default."""
    return option(flag, text, default=REQUIRED, **arguments)


def switch(flag: str, text: str) -> Any:
    """Return a field that is False until its flag is given."""
    return option(flag, text, default=False, action="store_true")


def repeated(flag: str, text: str, **arguments: Any) -> Any:
    """Return a field that collects a tuple: one value each time that the flag is given."""
    return option(flag, text, default=(), action="append", **arguments)


def group(kind: type[Any], title: str = "", text: str | None = None) -> Any:
    """Return a field that holds the options of another dataclass, shown under their own title."""
    return dataclasses.field(default_factory=kind, metadata={"kind": kind, "title": title, "text": text})


def add_options(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Add an argument for each field of the dataclass, groups included."""
    groups = [field for field in dataclasses.fields(kind) if "kind" in field.metadata]
    _add(parser, kind)
    for field in groups:
        title = field.metadata["title"]
        where = parser.add_argument_group(title, field.metadata["text"]) if title else parser
        _add(where, field.metadata["kind"])


def read(kind: type[T], parsed: argparse.Namespace) -> T:
    """Return the dataclass with what was parsed."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if "kind" in field.metadata:
            values[field.name] = read(field.metadata["kind"], parsed)
        else:
            value = vars(parsed)[field.name]
            values[field.name] = tuple(value or ()) if _is_repeated(field) else value
    return kind(**values)


def _add(where: Any, kind: type[Any]) -> None:
    for field in dataclasses.fields(kind):
        if "kind" in field.metadata:
            continue
        flag, arguments = field.metadata["flag"], dict(field.metadata["arguments"])
        if not flag.startswith("-"):
            where.add_argument(field.name, metavar=flag, **arguments)
            continue
        if field.default is dataclasses.MISSING:
            arguments["required"] = True
        elif not _is_repeated(field):
            arguments["default"] = field.default
        where.add_argument(flag, dest=field.name, **arguments)


def _is_repeated(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata["arguments"].get("action") == "append")
