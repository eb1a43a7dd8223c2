"""Throughput of Triton compared with bare ONNX Runtime: ``python -m bench throughput``.

The bare side runs the graphs in this process, the served side requests the same graphs over gRPC on this machine.
`bench.pairing` compares them.

Exceptions::

    ValueError
    +-- ThroughputError  the comparison is impossible, or the two sides give different answers

Also `bench.bare.ModelError`, `bench.page.PageError` and those of `server.errors`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from tqdm import tqdm
from tritonclient.utils import InferenceServerException

from assets.paths import REPOSITORY
from bench import page
from bench.bare import Arrays, Bare
from bench.pairing import Comparison, paired
from bench.table import head
from client.triton.codec import sent
from client.wire.access import is_local
from server.triton import LocalTriton

CODERS = ("ffhq_encoder", "ffhq_detail", "ffhq_looks")
MODELS = ("ffhq_mapping", "ffhq_coarse", *CODERS, "ffhq_fine", "ffhq_invert", "ffhq_edit")
IN_FLIGHT = (1, 2)
STRENGTHS = (-2.0, 2.0)
TIMEOUT_S = 60
MARK = "throughput"
_CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # One connection per worker, as for separate clients.
    ("grpc.use_local_subchannel_pool", 1),
]


class ThroughputError(ValueError):
    """The comparison is impossible, or the two sides give different answers."""


def feeds(repository: Path) -> dict[str, Arrays]:
    """A request for each model, computed by the bare models from a fixed seed; a batch of one where models batch."""
    rng = np.random.default_rng(7)
    latent: Arrays = {"z": rng.standard_normal((1, 512), np.float32), "psi": np.full((1, 1), 0.7, np.float32)}
    w = Bare(repository, "ffhq_mapping").run(latent)["w"]
    coarse: Arrays = {"w": np.repeat(w[:, None], 4, axis=1)}
    code = Bare(repository, "ffhq_coarse").run(coarse) | {"w_m_plus": np.repeat(w[:, None], 12, axis=1)}
    image: Arrays = {"image": Bare(repository, "ffhq_fine").run(code)["image"][:, ::4, ::4].copy()}
    aligned = np.eye(2, 3, dtype=np.float32)
    photo: Arrays = {**image, "transform": aligned[None]}
    edit: Arrays = {name: value[0] for name, value in code.items()}
    edit |= {"w_coarse": coarse["w"][0], "transform": aligned}
    edit["direction"] = 0.2 * rng.standard_normal((16, 512), np.float32)
    edit["strengths"] = np.array(STRENGTHS, np.float32)
    return dict(zip(MODELS, (latent, coarse, *(image for _ in CODERS), code, photo, edit), strict=True))


class Served:
    """A model of the server at ``url`` with its request, for up to ``workers`` workers at a time."""

    def __init__(self, url: str, model: str, feed: Arrays, *, workers: int) -> None:
        self._model, self._feed = model, feed
        self._clients = [triton.InferenceServerClient(url, channel_args=_CHANNEL) for _ in range(workers)]

    def __call__(self, worker: int) -> Arrays:
        """Send the request and read the whole answer."""
        answer = self._clients[worker].infer(self._model, sent(self._feed), client_timeout=TIMEOUT_S)
        return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}

    def close(self) -> None:
        """Close the channels."""
        for client in self._clients:
            client.close()


def check_alike(model: str, bare: Arrays, served: Arrays) -> None:
    """Raise `ThroughputError` unless both sides give the same outputs, except for rounding."""
    if {n: (a.shape, a.dtype) for n, a in bare.items()} != {n: (a.shape, a.dtype) for n, a in served.items()}:
        raise ThroughputError(f"`{model}` of the server has other outputs than the graphs of the repository")
    for name, array in bare.items():
        here, there = array.astype(np.float64), served[name].astype(np.float64)
        if not np.abs(here - there).mean() <= 0.01 * np.abs(here).mean():
            raise ThroughputError(f"`{model}` of the server gives another {name} than the graphs of the repository")


def compare(url: str, repository: Path, models: Iterable[str], *, seconds: float, rounds: int) -> Iterator[Comparison]:
    """Compare the models one by one.

    Raises:
        ThroughputError: the server does not answer, or gives different answers.
        ModelError: a model is missing from the repository.
    """
    requests = feeds(repository)
    for model in models:
        feed, bare = requests[model], Bare(repository, model)
        served = Served(url, model, feed, workers=max(IN_FLIGHT))
        try:
            outputs = bare.run(feed)
            check_alike(model, outputs, served(0))
            items = len(next(iter(outputs.values())))
            for in_flight in IN_FLIGHT:
                pairs = paired(
                    lambda _, bare=bare, feed=feed: bare.run(feed),  # type: ignore[misc]
                    served,
                    in_flight=in_flight,
                    seconds=seconds,
                    rounds=rounds,
                )
                yield Comparison(model=model, in_flight=in_flight, items=items, pairs=pairs)
        except InferenceServerException as exc:
            raise ThroughputError(f"`{model}` failed on the server at {url}: {exc.message()}") from exc
        finally:
            served.close()


def table(results: Sequence[Comparison], machine: str) -> str:
    """A Markdown table, above the machine it was measured on."""
    titles = ["model", "in flight", "served / bare", "min..max"]
    lines = head([*titles, "overhead, ms a request", "served, items/s", "bare, items/s"])
    for r in results:
        span = f"{min(r.ratios):.2f}..{max(r.ratios):.2f}"
        rates = f"{_rate(r.served_rate)} | {_rate(r.bare_rate)}"
        lines.append(
            f"| {r.model} | {r.in_flight} | **{median(r.ratios):.2f}** | {span} | {r.overhead_ms:.2f} | {rates} |"
        )
    return "\n".join([*lines, "", machine, ""])


def _rate(per_second: float) -> str:
    return f"{per_second:,.{0 if per_second >= 100 else 1 if per_second >= 10 else 2}f}"


def as_json(results: Sequence[Comparison], machine: str) -> str:
    """The same as JSON, with the ratio of every round."""
    rows = [
        {
            "model": r.model,
            "in_flight": r.in_flight,
            "ratio": median(r.ratios),
            "ratios": r.ratios,
            "overhead_ms": r.overhead_ms,
            "served_per_s": r.served_rate,
            "bare_per_s": r.bare_rate,
        }
        for r in results
    ]
    return json.dumps({"machine": machine, "results": rows}, indent=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench throughput``."""
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="the model repository (default: model_repository)"
    )
    parser.add_argument("--url", help="gRPC address of a server on this machine (default: start one)")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        metavar="MODEL",
        help="models to measure (default: all of the repository)",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per side and round (default: 2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each a pair of bare and served (default: 9)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"write the table between the marks of {MARK} in a file"
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        ThroughputError: an option is out of range, or see `compare`.
    """
    if not 0 < args.seconds <= 60 or not 1 <= args.rounds <= 100:
        raise ThroughputError("`--seconds` must be above 0 and at most 60, and `--rounds` from 1 to 100")
    if args.url:
        check_local(args.url)
    page.check(args.write, MARK)
    busy = os.getloadavg()[0]
    models = args.models or [model for model in MODELS if (args.repository / model).is_dir()]
    with ExitStack() as stack:
        url = args.url or stack.enter_context(LocalTriton(args.repository)).url
        version = server_version(url)
        compared = compare(url, args.repository, models, seconds=args.seconds, rounds=args.rounds)
        total = len(models) * len(IN_FLIGHT)
        results = list(tqdm(compared, total=total, desc="throughput", disable=None))
    provider = Bare(args.repository, models[0]).provider
    machine = (
        f"{len(os.sched_getaffinity(0))} CPU cores ({platform.system()} {platform.machine()}), load average {busy:.1f} "
        f"before the start; Triton {version}, ONNX Runtime {onnxruntime.__version__} ({provider}); "
        f"rounds of {args.seconds:g} s a side: {args.rounds}."
    )
    print(as_json(results, machine) if args.json else table(results, machine))
    page.write(args.write, table(results, machine), MARK)


def check_local(url: str) -> None:
    """Raise `ThroughputError` unless ``url`` is ``host:port`` on this machine, where the bare side runs."""
    if not is_local(url):
        raise ThroughputError(f"`--url` must be host:port on this machine, such as 127.0.0.1:8001, not `{url}`")


def server_version(url: str) -> str:
    """The version of Triton.

    Raises:
        ThroughputError: there is no answer.
    """
    with closing(triton.InferenceServerClient(url, channel_args=_CHANNEL)) as client:
        try:
            return str(client.get_server_metadata(client_timeout=TIMEOUT_S).version)
        except InferenceServerException as exc:
            raise ThroughputError(f"no answer from Triton at {url}: {exc.message()}") from exc
