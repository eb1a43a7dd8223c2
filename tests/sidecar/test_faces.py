"""The terms that look at the face alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from assets.face_net import face_net
from assets.perceptual import stlpips
from judges.faces import Face, Image8
from judges.reconstruction import Judge
from networks.close_ups import CORE, EYES, FACE_NET, SAMPLE_EYES, ffhq_square
from networks.pixels import from_array
from networks.similarity import IDENTITY, inverse, resample
from protocol.options import Options
from sidecar.job import Start
from sidecar.optimise.engine import TorchEngine
from sidecar.optimise.faces import FaceTerms
from sidecar.optimise.optimisation import Optimisation
from sidecar.optimise.recipe import FULL, Stage
from tests.sidecar.samples import finish, left, middle_engine, same, small_start

# A tilted face in a square of 512 px.
LANDMARKS = np.array([[180, 230], [300, 250], [230, 300], [180, 340], [280, 355]], np.float32)
WEIGHTS = {"close_up": 4.0, "person": 2.0, "eyes": 3.0}


class Finds(Judge):
    """Finds a face in every picture, unless it is black."""

    def face(self, image: Image8) -> Face | None:
        if not image.any():
            return None
        return Face(np.array([100, 150, 250, 250], np.float32), LANDMARKS, 0.9)


@pytest.fixture(scope="module")
def terms() -> FaceTerms:
    return FaceTerms(stlpips("alex"), face_net())


@pytest.fixture(scope="module")
def engine(terms: FaceTerms) -> TorchEngine:
    return middle_engine(faces=terms, judge=Finds())


@pytest.fixture(scope="module")
def start(engine: TorchEngine) -> Start:
    return left(small_start(engine, 3))


def opened(engine: TorchEngine, start: Start, *, steps: int = 1, **weights: float) -> Optimisation:
    return engine.open(start, Options(steps=steps, weights={**WEIGHTS, **weights}))


def test_a_face_is_compared_upright_from_eyes_to_chin(engine: TorchEngine, start: Start) -> None:
    job = opened(engine, start)
    image = engine._image(*engine._tensors(job.state()), False)
    theta = inverse(ffhq_square(torch.from_numpy(LANDMARKS / 512)[None]))
    here, there = (CORE.sized(160, 192)(each, theta) for each in (image, from_array(start.target)))
    close_up = stlpips("alex")(here, there) + 0.5 * (here - there).abs().mean()
    chips = (FACE_NET(F.avg_pool2d(each, 2), theta) for each in (image, from_array(start.target)))
    person = 1 - F.cosine_similarity(*(face_net()(chip) for chip in chips))
    eyes = 0.0
    for eye in EYES:
        here, there = (eye(each, theta) for each in (image, from_array(start.target)))
        eyes += (stlpips("alex")(here, there) + 4 * (here - there).abs().mean()).item() / 2

    finish(engine, [job])
    assert job.terms is not None
    assert job.terms.close_up == pytest.approx(close_up.item(), rel=0.02)  # a step may run in bfloat16
    assert job.terms.person == pytest.approx(person.item(), rel=0.05)
    assert job.terms.eyes == pytest.approx(eyes, rel=0.02)
    before = opened(engine, start, close_up=0.0, person=0.0, eyes=0.0)
    finish(engine, [before])
    assert before.terms is not None
    added = 4 * job.terms.close_up + 2 * job.terms.person + 3 * job.terms.eyes
    assert job.terms.total == pytest.approx(before.terms.total + added, rel=1e-3)


def test_the_eyes_come_to_lie_where_aligned_faces_have_them(engine: TorchEngine, start: Start) -> None:
    theta = engine._face_of(start.target)
    assert theta is not None
    places = torch.from_numpy(LANDMARKS[:2]) / 256 - 1
    eyes = ((places @ theta[0, :, :2].T + theta[0, :, 2]) + 1) / 2
    assert (eyes - torch.tensor(SAMPLE_EYES)).abs().max() < 0.03


def test_they_draw_the_face_closer(engine: TorchEngine, start: Start) -> None:
    ends = {}
    for weight in (0.0, 1.0):
        job = opened(engine, start, steps=6, close_up=40 * weight, person=20 * weight, eyes=20 * weight)
        finish(engine, [job])
        again = opened(engine, replace(start, **{k: getattr(job.state(), k) for k in ("f", "w_m_plus")}))
        finish(engine, [again])
        assert again.terms is not None
        ends[weight] = again.terms
    assert ends[1.0].close_up < ends[0.0].close_up
    assert ends[1.0].person < ends[0.0].person
    assert ends[1.0].eyes < ends[0.0].eyes


def test_without_a_face_there_is_nothing_to_compare(engine: TorchEngine, start: Start) -> None:
    job = opened(engine, replace(start, target=np.zeros_like(start.target)))
    assert job.group != opened(engine, start).group
    finish(engine, [job])
    assert job.terms is not None
    assert (job.terms.close_up, job.terms.person, job.terms.eyes) == (0, 0, 0)


def test_a_generator_of_no_faces_has_no_such_terms(middle: TorchEngine) -> None:
    job = opened(middle, left(small_start(middle, 3)))
    finish(middle, [job])
    assert job.terms is not None
    assert (job.terms.close_up, job.terms.person, job.terms.eyes) == (0, 0, 0)


def test_faces_of_a_batch_do_not_mix(engine: TorchEngine, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_fast_half", False)  # bfloat16 rounds more than 0.1 %, and a batch's otherwise
    other = left(small_start(engine, 4))
    alone = [opened(engine, each) for each in (start, other)]
    for job in alone:
        finish(engine, [job])
    monkeypatch.setattr(engine, "_largest", None)
    together = [opened(engine, each) for each in (start, other)]
    finish(engine, together)
    for one, both in zip(alone, together, strict=True):
        assert one.terms is not None
        assert both.terms is not None
        assert both.terms.close_up == pytest.approx(one.terms.close_up, rel=1e-3)
        assert both.terms.person == pytest.approx(one.terms.person, rel=1e-3)
        assert both.terms.eyes == pytest.approx(one.terms.eyes, rel=1e-3)
        assert same(one.state(), both.state()) < 0.2  # one step of Adam; rounding decides where gradients are tiny


@pytest.mark.parametrize(
    ("stage", "size"), [(FULL, (160, 192)), (Stage(side=256), (80, 96)), (Stage(side=64), (80, 96))]
)
def test_coarse_steps_look_less_closely(terms: FaceTerms, stage: Stage, size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, 1024, 1024)
    assert terms.close_up(picture, IDENTITY[None], stage).shape[-2:] == size
    assert terms.target(picture, IDENTITY[None], stage, half=False).close_up.shape[-2:] == size


def test_eyes_are_shown_whole_and_at_full_size(terms: FaceTerms) -> None:
    picture = torch.full((2, 3, 1024, 1024), -1.0)
    for number, (x, y) in enumerate(SAMPLE_EYES):
        left, top = round(1024 * x), round(1024 * y)
        picture[1, number, top - 40 : top + 40, left - 60 : left + 60] = 1
    eyes = terms.eyes(picture, IDENTITY[None].expand(2, 2, 3)).unflatten(0, (2, 2))
    assert eyes.shape == (2, 2, 3, 96, 144)
    assert eyes[0].max() < -0.99  # the first picture shows nothing
    for number in range(2):
        own, others = eyes[1, number, number], eyes[1, number, [c for c in range(3) if c != number]]
        assert (own > 0).sum().item() == pytest.approx(80 * 120, rel=0.05)
        assert others.max() < -0.99


def test_a_moved_face_is_the_same_face(terms: FaceTerms) -> None:
    torch.manual_seed(0)
    face = F.interpolate(torch.rand(1, 3, 16, 16), size=512, mode="bicubic").clamp(0, 1) * 2 - 1
    theta = torch.tensor([[[1.2, -0.3, 0.05], [0.3, 1.2, -0.1]]])
    moved = resample(face, theta, (512, 512))
    there = terms.target(face, IDENTITY[None], FULL, half=False)
    here = terms.target(moved, theta, FULL, half=False)
    assert (here.close_up - there.close_up).abs().mean() < 0.05
    assert (here.eyes - there.eyes).abs().mean() < 0.05
    assert F.cosine_similarity(here.descriptor, there.descriptor) > 0.9
