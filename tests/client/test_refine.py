"""Refinement through the API, over pretended side-cars."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from client import (
    AnswerRefused,
    Checkpoint,
    Frame,
    Inversion,
    Preview,
    Progress,
    Queued,
    RefinementDiverged,
    RefineOptions,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
    Waiting,
)
from protocol.messages import Finished
from tests.client.fakes import SIDE, check_sentence
from tests.client.refinements import BUSY, GONE, TEN, changed, events_of, failing, result_of
from tests.client.sidecar_fakes import METRICS, STEPS, FakeRefineTransport, simulated

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture(scope="module")
def photo(taken):
    return taken


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
    np.testing.assert_array_equal(target, photo.pixels(Frame.square(photo.size), SIDE))
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
    with pytest.raises(ServerUnavailable, match=r"no side-car answers at fake:8003: .*make serve.*--fast") as caught:
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
