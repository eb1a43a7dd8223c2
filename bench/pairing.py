"""Paired measurements: two sides under the same load, in turn.

A round loads one side and then the other with the same requests and the same number in flight, so that other work on
the machine affects both. The result is the median of the ratios within the rounds. The sides never run together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

# Sends one request and waits for the answer; the argument is the number of the worker.
Call = Callable[[int], object]

MAX_REQUESTS = 2000
WARM_UPS = 3
REST_S = 0.05


@dataclass(frozen=True)
class Load:
    """One side in one round: answered requests, and the seconds they took in total."""

    requests: int
    seconds: float

    @property
    def milliseconds(self) -> float:
        """Time per request: the inverse of the throughput, not a latency."""
        return 1000 * self.seconds / self.requests


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The rounds of a model at one number of requests in flight: pairs of bare and served loads.

    Attributes:
        items: images or latents per request.
    """

    model: str
    in_flight: int
    items: int
    pairs: tuple[tuple[Load, Load], ...]

    @property
    def ratios(self) -> list[float]:
        """Served over bare throughput, by round."""
        return [bare.milliseconds / served.milliseconds for bare, served in self.pairs]

    @property
    def overhead_ms(self) -> float:
        """Time per request, served minus bare: median over the rounds."""
        return median(served.milliseconds - bare.milliseconds for bare, served in self.pairs)

    @property
    def bare_rate(self) -> float:
        """Median items per second of the bare side."""
        return median(1000 * self.items / bare.milliseconds for bare, _ in self.pairs)

    @property
    def served_rate(self) -> float:
        """Median items per second of the served side."""
        return median(1000 * self.items / served.milliseconds for _, served in self.pairs)


def load(
    call: Call, *, in_flight: int, seconds: float, requests: int = MAX_REQUESTS, clock: Callable[[], float]
) -> Load:
    """Keep ``in_flight`` requests in progress, each sent when the previous one is answered.

    Ends after ``seconds`` or ``requests``, whichever comes first, but not before every worker has an answer.
    """
    start = clock()

    def work(worker: int) -> int:
        done = 0
        while done == 0 or (done < requests // in_flight and clock() - start < seconds):
            call(worker)
            done += 1
        return done

    if in_flight == 1:
        done = work(0)
    else:
        with ThreadPoolExecutor(in_flight) as pool:
            done = sum(pool.map(work, range(in_flight)))
    return Load(done, clock() - start)


def paired(
    bare: Call,
    served: Call,
    *,
    in_flight: int,
    seconds: float,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
) -> tuple[tuple[Load, Load], ...]:
    """Load bare and served in turn, ``rounds`` times, after a warm-up of both."""

    def side(call: Call, seconds: float) -> Load:
        # The other side's threads spin for a moment after its last request.
        rest(REST_S)
        return load(call, in_flight=in_flight, seconds=seconds, clock=clock)

    for _ in range(WARM_UPS):
        for call in (bare, served):
            side(call, 0)
    return tuple((side(bare, seconds), side(served, seconds)) for _ in range(rounds))
