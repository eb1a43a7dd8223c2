"""Where the servers are and how they are reached: options, environment variables, a file, defaults, in this order.

The file is TOML with the options' names (``url = "triton.example:8001"``, ``tls-ca = "ca.crt"``); its paths are beside
it. It is the one of ``--config``, else of ``$UNALIGNED_CONFIG``, else ``unaligned/client.toml`` in
``$XDG_CONFIG_HOME`` (``~/.config``), which may be missing.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.api import DEFAULT_REFINE_URL, DEFAULT_URL
from client.errors import ParameterError
from client.files.atomic import shown
from client.wire.access import Access, token_of

# Each with its environment variable.
NAMES: Final[Mapping[str, str]] = {
    "url": "UNALIGNED_URL",
    "refine-url": "UNALIGNED_REFINE_URL",
    "tls": "UNALIGNED_TLS",
    "tls-ca": "UNALIGNED_TLS_CA",
    "tls-cert": "UNALIGNED_TLS_CERT",
    "tls-key": "UNALIGNED_TLS_KEY",
    "token": "UNALIGNED_TOKEN",
}
_PATHS: Final = ("tls-ca", "tls-cert", "tls-key")
_MAX_BYTES: Final = 2**16
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The addresses of Triton and of the side-car, and how they let the client in."""

    url: str
    refine_url: str
    access: Access


def settings(options: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Settings:
    """What the command line, the environment and the file say together.

    Args:
        options: with ``config``, and of ``NAMES`` those that the command has, None where they were not given.
        environment: the process's own by default.

    Raises:
        ParameterError: the file cannot be read, or a value is none.
    """
    variables = os.environ if environment is None else environment
    written = _file(options, variables)

    def value(name: str) -> Any:
        typed = getattr(options, name.replace("-", "_"), None)
        # Empty is as unset, which is how containers pass what is not there.
        return typed if typed is not None else (variables.get(NAMES[name]) or written.get(name))

    def path(name: str) -> Path | None:
        found = value(name)
        return None if found is None else Path(found)

    token = value("token")
    return Settings(
        url=value("url") or DEFAULT_URL,
        refine_url=value("refine-url") or DEFAULT_REFINE_URL,
        access=Access(
            tls=_truth(value("tls")),
            ca=path("tls-ca"),
            certificate=path("tls-cert"),
            key=path("tls-key"),
            token=None if token is None else token_of(token),
        ),
    )


def _truth(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if value.lower() in (*_YES, *_NO):
        return value.lower() in _YES
    raise ParameterError(f"UNALIGNED_TLS is 1 or 0, not '{shown(value, limit=40)}'.")


def _file(options: argparse.Namespace, variables: Mapping[str, str]) -> dict[str, Any]:
    named = getattr(options, "config", None) or variables.get("UNALIGNED_CONFIG")
    home = variables.get("XDG_CONFIG_HOME") or Path(variables.get("HOME") or "~").expanduser() / ".config"
    path = Path(named) if named else Path(home) / "unaligned" / "client.toml"
    if not named and not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            found = tomllib.loads(file.read(_MAX_BYTES).decode())
    except OSError as problem:
        raise ParameterError(f"The configuration {shown(path)} cannot be read: {problem.strerror}.") from None
    except ValueError as problem:
        reason = shown(str(problem), limit=120).rstrip(".")
        raise ParameterError(f"The configuration {shown(path)} is no TOML: {reason}.") from None
    for name, value in found.items():
        if name not in NAMES:
            raise ParameterError(f"The configuration {shown(path)} has '{shown(name, limit=40)}', which is no setting.")
        if not isinstance(value, bool if name == "tls" else str):
            kind = "true or false" if name == "tls" else "a text"
            raise ParameterError(f"In the configuration {shown(path)} {name} is {kind}.")
    for name in _PATHS:
        if name in found:
            found[name] = str(path.parent / Path(found[name]).expanduser())
    if found.get("token", "").startswith("@"):
        found["token"] = f"@{path.parent / Path(found['token'][1:]).expanduser()}"
    return found
