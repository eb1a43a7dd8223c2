"""``python -m export repository``: lays the exported graphs out as the model repository that Triton serves.

``config.pbtxt`` follows from each graph's signature; those of ``ffhq`` are committed, the graphs are not. Nothing in it
is known to one backend only: NVIDIA's container serves the same folder.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from assets.paths import REPOSITORY
from export.generator import load_generator, shows_faces
from export.serve.graph import Graph
from export.serve.graphs import EVERY_CUT, add_cuts, graphs, recorded
from export.serve.triton_config import EnsembleStep, ServedModel, Tensor
from export.serve.variant import PLAIN, Variant, variant_of
from export.serve.variant import add_arguments as add_variant
from protocol.cuts import prefix
from protocol.roles import FACE_FINDER, FACES, FAITHFUL, ROLES, Role

VERSION = "1"


class RepositoryError(ValueError):
    """A graph is missing or has a signature that cannot be served."""


def model(graph: Graph, variant: Variant, *, parameters: dict[str, str]) -> ServedModel:
    """The configuration of a served graph.

    Raises:
        RepositoryError: it was not exported.
    """
    file = variant.file(graph.name)
    record = recorded(file)
    if not file.exists() or not {"inputs", "outputs"} <= set(record):
        raise RepositoryError(f"no graph `{file.name}`: run `python -m export graphs{variant.options}`")
    inputs, outputs = (
        tuple(Tensor(name=name, dtype=dtype, dims=tuple(dims)) for name, dtype, dims in record[side])
        for side in ("inputs", "outputs")
    )
    role = ROLES[graph.name.rpartition("_")[2]]
    if missing := {t.name for t in inputs if any(d < 0 for d in t.dims)} - set(role.largest):
        raise RepositoryError(f"the graph {graph.name} has an input without a limit: {', '.join(sorted(missing))}")
    return ServedModel(
        name=graph.name,
        backend=variant.backend,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=role.largest_batch,
        warmup_dims={t.name: tuple(2 if d < 0 else d for d in t.dims) for t in inputs},
        parameters=parameters | _bounds(role),
    )


def _bounds(role: Role) -> dict[str, str]:
    """The parameters that the Python-based backends read."""
    return {f"largest_{name}": str(size) for name, size in role.largest.items()}


def ensembles(name: str, served: dict[str, ServedModel], *, parameters: dict[str, str]) -> list[ServedModel]:
    """The ensembles of a cut; no ``invert`` where nothing is trained that gives codes.

    Args:
        name: what the names of the cut's models begin with.
        served: the cut's models by name.
        parameters: of the ensembles.
    """
    made = [_edit(name, served, parameters)]
    if coders := coders_of(name, served):
        made.insert(0, _invert(name, served, parameters, coders))
    return made


def coders_of(name: str, models: Container[str]) -> list[str]:
    """The models that give the code of a photo, of those that a cut has: the two looks, else encoder and detail head.

    Args:
        name: what the names of the cut's models begin with.
        models: names of its models.
    """
    for roles in (("looks",), ("encoder", "detail")):
        coders = [f"{name}_{role}" for role in roles]
        if all(coder in models for coder in coders):
            return coders
    return []


def painter_of(name: str, outputs: Iterable[str]) -> str:
    """The model that makes a picture of what the coders give: of two codes, or of one.

    Args:
        name: what the names of the cut's models begin with.
        outputs: names of what the coders give.
    """
    both = any(output.startswith(FAITHFUL) for output in outputs)
    return f"{name}_{'picture' if both else 'fine'}"


def _edit(name: str, served: dict[str, ServedModel], parameters: dict[str, str]) -> ServedModel:
    """One code, many strengths -> images."""
    fine, shift = (served[f"{name}_{role}"] for role in ("fine", "shift"))
    image = fine.outputs[0]
    return ServedModel(
        name=f"{name}_edit",
        inputs=shift.inputs,
        outputs=(Tensor(name="images", dtype=image.dtype, dims=(-1, *image.dims)),),
        max_batch_size=0,
        parameters=parameters | _bounds(ROLES["edit"]),
        steps=(
            EnsembleStep(
                model=shift.name,
                inputs={t.name: t.name for t in shift.inputs},
                outputs={t.name: t.name for t in shift.outputs},
            ),
            EnsembleStep(
                model=fine.name,
                inputs={"f": "f_batch", "w_m_plus": "w_m_plus_batch"},
                outputs={"image": "images"},
            ),
        ),
    )


def _invert(
    name: str, served: dict[str, ServedModel], parameters: dict[str, str], coders: Sequence[str]
) -> ServedModel:
    """image -> f, w_m_plus, reconstruction; with a coarse look: image, transform -> those and w_coarse.

    Where a coder gives a faithful code as well, the reconstruction is the picture of both.
    """
    readers = [served[model] for model in (*coders, f"{name}_styles") if model in served]
    inputs = {tensor.name: tensor for model in readers for tensor in model.inputs}
    found = [tensor for model in readers for tensor in model.outputs]
    painter = served[painter_of(name, [tensor.name for tensor in found])]
    image = painter.outputs[0]
    return ServedModel(
        name=f"{name}_invert",
        inputs=tuple(inputs.values()),
        outputs=(
            *found,
            Tensor(name="reconstruction", dtype=image.dtype, dims=image.dims),
        ),
        max_batch_size=painter.max_batch_size,
        parameters=parameters,
        steps=(
            *(
                EnsembleStep(
                    model=model.name,
                    inputs={t.name: t.name for t in model.inputs},
                    outputs={t.name: t.name for t in model.outputs},
                )
                for model in readers
            ),
            EnsembleStep(
                model=painter.name,
                inputs={t.name: t.name for t in painter.inputs},
                outputs={"image": "reconstruction"},
            ),
        ),
    )


def configurations(domain: str, variant: Variant = PLAIN, *, cuts: Sequence[int] = EVERY_CUT) -> list[ServedModel]:
    """All models of a domain, from the graphs that were exported."""
    generator = load_generator(domain)
    common = {"domain": domain, "generator": generator.fingerprint}
    if variant.precision != "fp32":
        common["precision"] = variant.precision
    if shows_faces(domain):
        common[FACE_FINDER] = FACES
    found = []
    for cut in cuts:
        name = prefix(domain, cut)
        parameters = common | {"cut": str(cut), "coarse_styles": str(generator.synthesis.coarse_styles(cut))}
        served = {
            graph.name: model(graph, variant, parameters={} if graph.name == FACES else parameters)
            for graph in graphs(domain, [cut])
        }
        found += [*served.values(), *ensembles(name, served, parameters=parameters)]
    return found


def write(domain: str, repository: Path, variant: Variant = PLAIN, *, cuts: Sequence[int] = EVERY_CUT) -> list[str]:
    """Bring a repository up to date; returns the names of the models that changed."""
    changed = []
    for config in configurations(domain, variant, cuts=cuts):
        folder = repository / config.name
        version = folder / VERSION
        version.mkdir(parents=True, exist_ok=True)
        fresh = _write_text(folder / "config.pbtxt", config.text())
        if not config.steps:
            fresh |= _copy(variant.file(config.name), version / variant.served)
            for other in set(version.glob("model.*")) - {version / variant.served}:  # of another format
                other.unlink()
        if fresh:
            changed.append(config.name)
    return changed


def _write_text(path: Path, text: str) -> bool:
    if path.exists() and path.read_text() == text:
        return False
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)
    return True


def _copy(source: Path, target: Path) -> bool:
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return False
    partial = target.with_suffix(f".{os.getpid()}.part")
    shutil.copyfile(source, partial)
    partial.replace(target)
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export repository``."""
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="default: model_repository")
    add_cuts(parser)
    add_variant(parser)


def run(args: argparse.Namespace) -> None:
    """Write what is out of date and say so."""
    changed = write(args.domain, args.repository, variant_of(args), cuts=args.cuts)
    print("repository: " + (", ".join(changed) if changed else "up to date"))
