"""Where the servers are and how to reach them: flags, environment variables, a file, defaults, in this order.

The file is TOML with the flags' names (``url = "triton.example:8001"``, ``tls-ca = "ca.crt"``); its paths are relative
to it. It is the one of ``--config``, else of ``$UNALIGNED_CONFIG``, else ``unaligned/client.toml`` in
``$XDG_CONFIG_HOME`` (``~/.config``), which may be missing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.atomic import read_bounded
from client.errors import ParameterError
from client.text import quoted, shown
from client.wire.access import Access, token_of
from client.wire.defaults import DEFAULT_REFINE_URL, DEFAULT_URL

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
class Endpoints:
    """The addresses of Triton and of the side-car, and how to connect to them."""

    url: str
    refine_url: str
    access: Access


def endpoints(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Endpoints:
    """Return what the command line, the environment and the file say together.

    Args:
        given: flags of the command line, by the name of their option (``tls_ca``); None, or absent, is not given.
        environment: the process's own by default.

    Raises:
        ParameterError: the file cannot be read, or a value is invalid.
    """
    variables = os.environ if environment is None else environment
    written = _file(given.get("config"), variables)

    def value(name: str) -> Any:
        flag = given.get(name.replace("-", "_"))
        # An empty variable counts as unset: containers pass missing values that way.
        return flag if flag is not None else (variables.get(NAMES[name]) or written.get(name))

    def path(name: str) -> Path | None:
        found = value(name)
        return None if found is None else Path(found)

    token = value("token")
    return Endpoints(
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
    raise ParameterError(f"invalid UNALIGNED_TLS {quoted(value, limit=40)}: expected 1 or 0")


def _file(given: str | None, variables: Mapping[str, str]) -> dict[str, Any]:
    named = given or variables.get("UNALIGNED_CONFIG")
    home = variables.get("XDG_CONFIG_HOME") or _expanded(Path(variables.get("HOME") or "~")) / ".config"
    path = Path(named) if named else Path(home) / "unaligned" / "client.toml"
    if not named and not path.is_file():
        return {}
    data = read_bounded(path, limit=_MAX_BYTES, error=ParameterError)
    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as problem:
        why = "nested too deeply" if isinstance(problem, RecursionError) else shown(str(problem), limit=120)
        raise ParameterError(f"cannot read {quoted(path)}: not TOML ({why.rstrip('.')})") from problem
    for name, value in found.items():
        if name not in NAMES:
            raise ParameterError(
                f"unknown setting {quoted(name, limit=40)} in {quoted(path)}: expected {', '.join(NAMES)}"
            )
        if not isinstance(value, bool if name == "tls" else str):
            kind = "true or false" if name == "tls" else "a string"
            raise ParameterError(f"invalid {name} in {quoted(path)}: expected {kind}")
    for name in _PATHS:
        if name in found:
            found[name] = str(path.parent / _expanded(Path(found[name])))
    if found.get("token", "").startswith("@"):
        found["token"] = f"@{path.parent / _expanded(Path(found['token'][1:]))}"
    return found


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as problem:
        raise ParameterError(f"cannot expand {quoted(path)}: no such user") from problem
