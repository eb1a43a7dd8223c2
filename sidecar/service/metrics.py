"""Prometheus metrics of the side-car, in their own registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("steps", "seconds", "target", "cancelled", "diverged", "unavailable", "refused", "full", "error")
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
_STEP_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Meters:
    """Counts jobs, steps and batches."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._ended = Counter("refine_jobs", "Jobs that ended, by outcome.", ["outcome"], registry=r)
        for outcome in OUTCOMES:
            self._ended.labels(outcome)
        self._steps = Counter("refine_steps", "Steps taken, all jobs together.", registry=r)
        self._unread = Counter("refine_unread", "Results dropped because nobody read them.", registry=r)
        self._waiting = Gauge("refine_queue_depth", "Jobs that wait.", registry=r)
        self._active = Gauge("refine_active_jobs", "Jobs that are being optimised.", registry=r)
        self._occupancy = Histogram("refine_batch_jobs", "Jobs in a slice's batch.", buckets=_SIZES, registry=r)
        self._job_seconds = Histogram(
            "refine_job_seconds", "Seconds from a job's arrival to its end.", buckets=_SECONDS, registry=r
        )
        self._step_seconds = Histogram(
            "refine_step_seconds", "Seconds a step of a whole batch.", buckets=_STEP_SECONDS, registry=r
        )

    def jobs(self, *, waiting: int, active: int) -> None:
        """How many jobs there are now."""
        self._waiting.set(waiting)
        self._active.set(active)

    def slice_done(self, *, jobs: int, steps: int, seconds: float) -> None:
        """A batch took a slice of steps; ``steps`` are those of all its jobs together."""
        self._steps.inc(steps)
        self._occupancy.observe(jobs)
        if steps:
            self._step_seconds.observe(seconds * jobs / steps)

    def job_ended(self, outcome: str, *, seconds: float) -> None:
        """A job ended, with one of ``OUTCOMES``, so many seconds after it came."""
        self._ended.labels(outcome).inc()
        self._job_seconds.observe(seconds)

    def unread(self) -> None:
        """A result was dropped: its client did not read it."""
        self._unread.inc()

    def refused(self, outcome: str) -> None:
        """A request did not become a job, with one of ``OUTCOMES``."""
        self._ended.labels(outcome).inc()
