"""Answers of a side-car that are rejected, and refinements that continue."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing, closing
from dataclasses import replace

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
    Progress,
    RefineOptions,
    Timeout,
)
from protocol.messages import State
from tests.client.fakes import SIDE, FakeAsyncTransport, FakeTransport, check_sentence
from tests.client.refinements import TEN, changed, events_of, result_of
from tests.client.sidecar_fakes import STEPS, FakeAsyncRefineTransport, FakeRefineTransport, simulated

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture(scope="module")
def photo(taken):
    return taken


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
        (state_with(optimiser=lambda o: {"../x": o["momentum"]}), "invalid name"),
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


def test_it_continues_exactly_from_a_file(interrupted, inversion, photo, asynchronous):
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


def test_other_options_continue_but_another_preset_starts_anew(interrupted):
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
        ((inversion,), ParameterError, "`me.png` itself", None),
        ((inversion, other), PhotoError, "`other.png` is not the photo", None),
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
