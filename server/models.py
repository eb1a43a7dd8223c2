"""Which models of a repository are served: each server process holds a model's graph and its own Python in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from server.errors import LaunchError

ALL: Final = "all"
DEFAULT: Final = "default"
# In the names of models of W+ and of other cuts than the default, such as `ffhq_cut8_invert`.
_OTHER_CUT = re.compile(r"_cut\d+_")
_ROLES: Final = ("_invert", "_edit", "_coarse")
_FACES: Final = "faces"
_STEP = re.compile(r'\bmodel_name\s*:\s*"([^"]+)"')


def served(repository: Path, wanted: Sequence[str]) -> list[str] | None:
    """The models to serve, sorted, with those that ensembles among them need; None for all of the repository.

    Args:
        repository: a folder with a ``<model>/config.pbtxt`` each.
        wanted: names; ``all``; or ``default``, what `invert` and `edit` of the default cut need. A repository without
            such models is served as a whole.

    Raises:
        LaunchError: there is no such model.
    """
    there = {path.parent.name for path in repository.glob("*/config.pbtxt")}
    if ALL in wanted:
        return None
    names = {name for name in wanted if name != DEFAULT}
    if missing := sorted(names - there):
        raise LaunchError(f"no model `{missing[0]}` in `{repository}`: expected {ALL}, {DEFAULT} or {_listed(there)}")
    if DEFAULT in wanted:
        usual = {name for name in there if name.endswith(_ROLES) and not _OTHER_CUT.search(name)}
        if not usual:
            return None
        names |= usual | ({_FACES} & there)
    return sorted(_with_steps(repository, names, there))


def linked(repository: Path, names: Sequence[str], folder: Path) -> Path:
    """A repository with only these models: links in a separate folder under ``folder``, made once."""
    digest = hashlib.sha256("\0".join((str(repository), *names)).encode()).hexdigest()[:12]
    made = folder / f"models-{digest}"
    made.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (made / name).symlink_to(repository / name, target_is_directory=True)
        except FileExistsError:
            # Another launcher, or an earlier run.
            continue
    return made


def _with_steps(repository: Path, names: Iterable[str], there: set[str]) -> set[str]:
    """The models, and those that their ensembles run, which may be ensembles, too."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found or name not in there:
            continue
        found.add(name)
        left += _STEP.findall((repository / name / "config.pbtxt").read_text())
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
