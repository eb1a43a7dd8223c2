"""Refinement through the API, over pretended side-cars."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing, closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from client import (
    AnswerRefused,
    AsyncInverter,
    Checkpoint,
    GeneratorMismatch,
    Inversion,
    InversionError,
    Inverter,
    ParameterError,
    Photo,
    PhotoError,
    Preview,
    Progress,
    Queued,
    Refined,
    RefinementDiverged,
    RefineOptions,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
    Timeout,
    Waiting,
)
from protocol.messages import Finished, State
from tests.client.fakes import SIDE, FakeAsyncTransport, FakeTransport, check_sentence
from tests.client.sidecar_fakes import METRICS, STEPS, FakeAsyncRefineTransport, FakeRefineTransport, simulated


@pytest.fixture(params=[False, True], ids=["blocking", "async"])
def asynchronous(request):
    return request.param


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only sleeping moves; the seconds slept."""
    now = [0.0]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    async def sleep_async(seconds):
        sleep(seconds)

    monkeypatch.setattr("client.sidecar.resume.time.monotonic", lambda: now[0])
    monkeypatch.setattr("client.sidecar.resume.time.sleep", sleep)
    monkeypatch.setattr("client.sidecar.resume.asyncio.sleep", sleep_async)
    return slept


@pytest.fixture(scope="module")
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    return Photo(Image.fromarray(pixels), "me.png", "ab" * 32)


@pytest.fixture(scope="module")
def inversion(photo):
    with Inverter(transport=FakeTransport()) as inverter:
        return inverter.invert(photo).inversion


def events_of(*arguments, transport, asynchronous=False, generator=None, events=None, **timeouts):
    """All events of a refinement; those before an error are left in ``events``."""
    found = [] if events is None else events
    triton = FakeTransport(**({} if generator is None else {"generator": generator}))
    timeout = Timeout(**timeouts)
    if not asynchronous:
        with Inverter(transport=triton, refine_transport=transport, timeout=timeout) as inverter:
            found.extend(iterated(inverter.refine(*arguments), found))
        return found

    async def go():
        given = {"transport": FakeAsyncTransport(triton), "refine_transport": FakeAsyncRefineTransport(transport)}
        async with AsyncInverter(timeout=timeout, **given) as inverter:
            async for event in inverter.refine(*arguments):
                found.append(event)

    asyncio.run(go())
    return found


def iterated(events, found):
    for event in events:
        found.append(event)
    return ()


def failing(problem: ServerError, *, after: int = 0):
    """A side-car that takes so many steps and fails."""

    def script(request):
        def hook(step):
            if step >= after:
                raise problem

        if after == 0:
            raise problem
        yield from simulated(request, hook)

    return script


def changed(kind, **changes):
    """A side-car whose messages of a kind are changed."""

    def script(request):
        for message in simulated(request):
            yield replace(message, **changes) if isinstance(message, kind) else message

    return script


GONE = ServerUnavailable("No side-car answers at fake:8003, or it went away.")
BUSY = ServerBusy("The side-car at fake:8003 is busy: its queue is full.")
TEN = RefineOptions(checkpoint_every=10)


def result_of(events) -> Inversion:
    assert isinstance(events[-1], Refined)
    return events[-1].inversion


def test_a_refinement(inversion, photo, asynchronous):
    transport = FakeRefineTransport()
    options = RefineOptions(checkpoint_every=10, preview_every=20, weights={"mse": 2.0})
    events = events_of(inversion, photo, options, transport=transport, asynchronous=asynchronous)
    assert transport.closed
    assert transport.open == 0
    (request,) = transport.requests
    assert (request.generator, request.domain, request.options) == (inversion.generator, "ffhq", options)
    assert request.resume is None
    for name in ("f", "w_m_plus", "f_o"):
        np.testing.assert_array_equal(getattr(request, name), getattr(inversion, name))
    target = np.asarray(Image.open(io.BytesIO(request.target)))
    np.testing.assert_array_equal(target, photo.pixels(photo.square(), SIDE))
    kinds = [type(event) for event in events]
    assert kinds[:3] == [Checkpoint, Queued, Progress]
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(5, STEPS + 1, 5))
    assert [event.step for event in events if isinstance(event, Preview)] == [20, 40]
    kept = [event.inversion for event in events if isinstance(event, Checkpoint)]
    assert [each.refinement.step for each in kept] == [0, 10, 20, 30]
    assert [each.method for each in kept] == ["encoder"] + ["refined:default"] * 3
    assert all(each.refinement.reason is None for each in kept)
    final = result_of(events)
    *_, told = simulated(request)
    assert isinstance(told, Finished)
    np.testing.assert_array_equal(final.f, told.state.f)
    np.testing.assert_array_equal(final.w_m_plus, told.state.w_m_plus)
    np.testing.assert_array_equal(final.f_o, inversion.f_o)
    assert events[-1].metrics == METRICS
    refinement = final.refinement
    assert (refinement.step, refinement.steps, refinement.reason) == (STEPS, STEPS, "steps")
    assert (refinement.metrics, refinement.terms) == (METRICS, told.state.terms)
    assert refinement.optimiser == {}
    assert (final.method, final.target) == ("refined:default", request.target)


@pytest.mark.parametrize("after", [1, 7, 10, 11, 29, 39])
def test_a_killed_side_car_costs_no_more_than_the_steps_since_its_checkpoint(inversion, photo, asynchronous, after):
    alone = result_of(events_of(inversion, photo, TEN, transport=FakeRefineTransport()))
    transport = FakeRefineTransport(failing(GONE, after=after), simulated)
    events = events_of(inversion, photo, TEN, transport=transport, asynchronous=asynchronous)
    first, second = transport.requests
    assert first.request_id == second.request_id
    # Step `after` itself was not done.
    checkpoint = (after - 1) // 10 * 10
    assert (second.resume.step if second.resume else 0) == checkpoint
    assert sum(isinstance(event, Waiting) for event in events) == 1
    final = result_of(events)
    np.testing.assert_array_equal(final.f, alone.f)
    np.testing.assert_array_equal(final.w_m_plus, alone.w_m_plus)
    assert final.refinement.seconds == alone.refinement.seconds


def test_it_survives_a_side_car_that_falls_over_again_and_again_but_gets_on(inversion, photo, clock):
    scripts = [failing(GONE, after=step) for step in range(5, STEPS, 5)]
    transport = FakeRefineTransport(*scripts, simulated)
    events = events_of(inversion, photo, RefineOptions(checkpoint_every=2), transport=transport, patience=0.2)
    assert result_of(events).refinement.step == STEPS
    assert len(transport.requests) == len(scripts) + 1
    assert sum(clock) > 0.2


def test_patience_ends_where_it_falls_over_at_the_same_step(inversion, photo, clock, asynchronous):
    transport = FakeRefineTransport(failing(GONE, after=15))
    events = []
    with pytest.raises(ServerUnavailable) as caught:
        events_of(inversion, photo, TEN, transport=transport, asynchronous=asynchronous, patience=100, events=events)
    check_sentence(caught.value)
    assert 90 < sum(clock) <= 100
    assert all(later.step == 10 for later in [request.resume for request in transport.requests[1:]])
    kept = [event.inversion for event in events if isinstance(event, Checkpoint)]
    assert kept[-1].refinement.step == 10


def test_waits_grow_and_have_a_bound(inversion, photo, clock):
    with pytest.raises(ServerUnavailable):
        events_of(inversion, photo, transport=FakeRefineTransport(failing(GONE, after=1), failing(GONE)), patience=200)
    for attempt, seconds in enumerate(clock):
        most = min(0.1 * 2**attempt, 5)
        assert most / 2 <= seconds <= most
    assert max(clock) > 2.5


def test_no_side_car(inversion, photo, clock, asynchronous):
    events = []
    transport = FakeRefineTransport(failing(GONE))
    with pytest.raises(ServerUnavailable, match=r"No side-car answers at fake:8003: .*make serve.*--fast") as caught:
        events_of(
            inversion, photo, transport=transport, asynchronous=asynchronous, connect=3, patience=900, events=events
        )
    check_sentence(caught.value)
    assert sum(clock) <= 3
    assert {type(event) for event in events} == {Waiting}


def test_a_full_queue_is_waited_for(inversion, photo, asynchronous):
    transport = FakeRefineTransport(failing(BUSY), failing(BUSY), simulated)
    events = events_of(inversion, photo, transport=transport, asynchronous=asynchronous, connect=0.01)
    assert [type(event) for event in events[:3]] == [Waiting, Waiting, Checkpoint]
    assert "busy" in events[0].reason
    assert result_of(events).refinement.step == STEPS


def test_a_queue_that_stays_full(inversion, photo, clock):
    with pytest.raises(ServerBusy):
        events_of(inversion, photo, transport=FakeRefineTransport(failing(BUSY)), patience=30)
    assert 20 < sum(clock) <= 30


@pytest.mark.parametrize("kind", [RequestRejected, RefinementDiverged, ServerTimeout, AnswerRefused, ServerError])
def test_nothing_else_is_tried_again(inversion, photo, kind, asynchronous):
    transport = FakeRefineTransport(failing(kind("That is how it is, and it stays so."), after=12))
    events = []
    with pytest.raises(kind):
        events_of(inversion, photo, TEN, transport=transport, asynchronous=asynchronous, events=events)
    assert len(transport.requests) == 1
    assert transport.open == 0
    assert [event.inversion.refinement.step for event in events if isinstance(event, Checkpoint)] == [0, 10]


def test_a_stream_that_ends_without_a_result_is_tried_again(inversion, photo, asynchronous):
    def short(request):
        for message in simulated(request):
            if isinstance(message, Finished):
                return
            yield message

    transport = FakeRefineTransport(short, simulated)
    events = events_of(inversion, photo, TEN, transport=transport, asynchronous=asynchronous)
    assert transport.requests[1].resume.step == 30
    assert result_of(events).refinement.step == STEPS


def test_the_deadline_of_the_whole(inversion, photo, clock):
    transport = FakeRefineTransport(failing(GONE, after=5), failing(GONE))
    with pytest.raises(ServerTimeout, match="20 seconds"):
        events_of(inversion, photo, transport=transport, refinement=20, patience=500)
    assert transport.timeouts[0] == 20
    assert all(later < earlier for earlier, later in pairwise(transport.timeouts))
    assert sum(clock) >= 20
    assert events_of(inversion, photo, transport=(without := FakeRefineTransport()))
    assert without.timeouts == [None]


def test_a_result_that_was_not_judged_is_a_result(inversion, photo, tmp_path):
    *_, last = events_of(inversion, photo, transport=FakeRefineTransport(changed(Finished, metrics=None)))
    assert last.metrics is None
    last.inversion.save(tmp_path / "it")
    assert Inversion.load(tmp_path / "it").refinement.metrics is None


def nan(value):
    spoilt = value.copy()
    spoilt.flat[5] = np.nan
    return spoilt


def stepping_back(request):
    for message in simulated(request):
        yield message
        if isinstance(message, Progress):
            yield replace(message, step=message.step - 1)


def state_with(**changes):
    """A side-car whose second checkpoint is changed by functions of its fields."""

    def script(request):
        checkpoints = 0
        for message in simulated(request):
            checkpoints += isinstance(message, State)
            if isinstance(message, State) and checkpoints == 2:
                yield replace(message, **{name: change(getattr(message, name)) for name, change in changes.items()})
            else:
                yield message

    return script


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (state_with(f=nan), "not finite"),
        (state_with(w_m_plus=nan), "not finite"),
        (state_with(f=lambda f: f[:, :8]), r"\[512, 8, 16\]"),
        (state_with(w_m_plus=lambda w: w[:11]), r"\[11, 512\]"),
        (state_with(f=lambda f: f.astype(np.float64)), "float64"),
        (state_with(optimiser=lambda o: {"momentum": nan(o["momentum"])}), "not finite"),
        (state_with(optimiser=lambda o: {"../x": o["momentum"]}), "plain name"),
        (state_with(optimiser=lambda _: {str(n): np.zeros(1, np.float32) for n in range(300)}), "300"),
        (state_with(step=lambda _: 9), "step 9 after step 10"),
        (state_with(step=lambda _: 10_001), "10001"),
        (state_with(seconds=lambda _: float("nan")), "seconds"),
        (state_with(seconds=lambda _: -1.0), "seconds"),
        (stepping_back, "step 4 after step 5"),
        (changed(Progress, step=20_000), "20000"),
        (changed(Progress, steps=0), "0 steps"),
        (changed(Progress, steps=3), "3 steps"),
        (changed(Progress, steps=20_000), "20000 steps"),
        (changed(Progress, seconds=-2.0), "-2 seconds"),
        (changed(Progress, seconds=float("nan")), "nan seconds"),
    ],
)
def test_unusable_answers_are_refused(inversion, photo, script, words, asynchronous):
    transport = FakeRefineTransport(script)
    events = []
    with pytest.raises(AnswerRefused, match=words) as caught:
        events_of(inversion, photo, TEN, transport=transport, asynchronous=asynchronous, events=events)
    check_sentence(caught.value)
    assert len(transport.requests) == 1
    assert all(np.isfinite(each.inversion.f).all() for each in events if isinstance(each, Checkpoint))


def test_leaving_early_closes_the_stream(inversion, photo):
    transport = FakeRefineTransport()
    with Inverter(transport=FakeTransport(), refine_transport=transport) as inverter:
        with closing(inverter.refine(inversion, photo)) as events:
            for event in events:
                if isinstance(event, Progress):
                    assert transport.open == 1
                    break
        assert transport.open == 0

    async def go():
        given = {"transport": FakeAsyncTransport(FakeTransport())}
        async with AsyncInverter(refine_transport=FakeAsyncRefineTransport(transport), **given) as inverter:
            async with aclosing(inverter.refine(inversion, photo)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        assert transport.open == 1
                        break
            assert transport.open == 0

    asyncio.run(go())


@pytest.fixture(scope="module")
def interrupted(inversion, photo, tmp_path_factory):
    """An inversion as a file has it after a refinement was left at its second checkpoint."""
    options = RefineOptions(checkpoint_every=10, steps=35, weights={"f": 3.0})
    path = tmp_path_factory.mktemp("interrupted") / "it"
    with Inverter(transport=FakeTransport(), refine_transport=FakeRefineTransport()) as inverter:
        for event in inverter.refine(inversion, photo, options):
            if isinstance(event, Checkpoint) and event.inversion.refinement.step == 20:
                event.inversion.save(path)
    return Inversion.load(path)


def test_it_goes_on_exactly_from_a_file(interrupted, inversion, photo, asynchronous):
    options = interrupted.refinement.options
    alone = result_of(events_of(inversion, photo, options, transport=FakeRefineTransport()))
    transport = FakeRefineTransport()
    final = result_of(events_of(interrupted, transport=transport, asynchronous=asynchronous))
    (request,) = transport.requests
    assert request.options == options
    assert (request.resume.step, request.resume.seconds) == (20, 10.0)
    assert request.resume.terms == interrupted.refinement.terms
    np.testing.assert_array_equal(final.f, alone.f)
    np.testing.assert_array_equal(final.w_m_plus, alone.w_m_plus)
    assert final.refinement.step == 35


def test_other_options_go_on_but_another_preset_starts_anew(interrupted):
    transport = FakeRefineTransport()
    final = result_of(events_of(interrupted, None, RefineOptions(steps=30), transport=transport))
    assert transport.requests[0].resume.step == 20
    assert final.refinement.step == 30
    transport = FakeRefineTransport()
    final = result_of(events_of(interrupted, None, RefineOptions(preset="paper"), transport=transport))
    assert transport.requests[0].resume is None
    np.testing.assert_array_equal(transport.requests[0].f, interrupted.f)
    assert (final.method, final.refinement.step) == ("refined:paper", STEPS)


def test_a_finished_one_starts_anew_from_where_it_ended(interrupted):
    finished = result_of(events_of(interrupted, transport=FakeRefineTransport()))
    transport = FakeRefineTransport()
    events_of(finished, transport=transport)
    (request,) = transport.requests
    assert request.resume is None
    assert request.options == RefineOptions()
    np.testing.assert_array_equal(request.f, finished.f)
    np.testing.assert_array_equal(request.f_o, finished.f_o)


def test_what_cannot_be_refined_never_reaches_a_side_car(inversion, photo, interrupted, asynchronous):
    other = Photo(photo.image, "other.png", "cd" * 32)
    large = io.BytesIO()
    Image.new("RGB", (SIDE * 2, SIDE * 2)).save(large, "PNG")
    transport = FakeRefineTransport()
    for arguments, kind, words, generator in (
        ((inversion,), ParameterError, "me.png itself", None),
        ((inversion, other), PhotoError, "other.png is not the photo", None),
        ((inversion, "none.png"), PhotoError, "does not exist", None),
        ((interrupted,), GeneratorMismatch, "f" * 16, "f" * 16),
        ((replace(interrupted, target=large.getvalue()),), InversionError, f"{SIDE}x{SIDE}", None),
    ):
        with pytest.raises(kind, match=words) as caught:
            events_of(*arguments, transport=transport, asynchronous=asynchronous, generator=generator)
        check_sentence(caught.value)
    assert transport.requests == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_the_new_deadlines_are_checked(value):
    with pytest.raises(ParameterError):
        Timeout(patience=value)
    with pytest.raises(ParameterError):
        Timeout(refinement=value)


def test_the_side_cars_address_is_checked():
    with pytest.raises(ParameterError, match="host:port"):
        Inverter(transport=FakeTransport(), refine_url="http://there")
