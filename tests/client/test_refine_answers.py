"""Answers of a side-car, as the wire has them."""

from __future__ import annotations

import pytest

from client import AnswerRefused
from client.sidecar.grpc import message_of
from protocol import refine_pb2 as pb
from protocol.codec import to_event, to_tensor
from tests.client.fakes import check_sentence
from tests.client.sidecar_fakes import jpeg, simulated
from tests.client.test_refine_grpc import STATE, request


def tensor(shape, data: bytes) -> pb.Tensor:
    return pb.Tensor(shape=shape, data=data)


def checkpoint(**changes) -> pb.RefineEvent:
    fields = {"step": 10, "f": to_tensor(STATE.f), "w_m_plus": to_tensor(STATE.w_m_plus), **changes}
    return pb.RefineEvent(checkpoint=pb.Checkpoint(**fields))


def done(**changes) -> pb.RefineEvent:
    fields = {"f": to_tensor(STATE.f), "w_m_plus": to_tensor(STATE.w_m_plus), **changes}
    return pb.RefineEvent(done=pb.Done(**fields))


NAN_TERMS = pb.Terms(total=float("nan"))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (checkpoint(f=tensor([512, 16, 16], b"1234")), "bytes"),
        (checkpoint(f=tensor([2**32 - 1, 2**32 - 1], b"")), "bytes"),
        (checkpoint(f=tensor([1] * 100, bytes(4))), "100 dimensions"),
        (checkpoint(f=tensor([1], b"123")), "bytes"),
        (checkpoint(terms=NAN_TERMS), "term total"),
        (checkpoint(terms=pb.Terms(mse=float("inf"))), "term mse"),
        (pb.RefineEvent(progress=pb.Progress(step=1, steps=2, terms=NAN_TERMS)), "term total"),
        (pb.RefineEvent(preview=pb.Preview(step=1, jpeg=b"GIF89a")), "JPEG"),
        (done(metrics=pb.Metrics()), "reason"),
        (done(reason=77, metrics=pb.Metrics()), "reason"),
        (done(reason=1, metrics=pb.Metrics(psnr=float("nan"))), "metric psnr"),
        (done(reason=1, metrics=pb.Metrics(identity=float("inf"))), "metric identity"),
    ],
)
def test_unreadable_answers_are_refused(event, words):
    with pytest.raises(AnswerRefused, match=words) as caught:
        message_of(event)
    check_sentence(caught.value)


def test_optional_metrics_and_events_of_another_version():
    *_, last = simulated(request())
    event = to_event(last)
    for name in ("identity", "landmarks", "face"):
        event.done.metrics.ClearField(name)
    metrics = message_of(event).metrics
    assert (metrics.identity, metrics.landmarks, metrics.face) == (None, None, None)
    event.done.ClearField("metrics")
    assert message_of(event).metrics is None
    assert message_of(pb.RefineEvent()) is None
    assert message_of(pb.RefineEvent(preview=pb.Preview(step=3, jpeg=jpeg(3)))).step == 3
