"""The face finder as a graph: one model for all domains that show faces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assets.yunet import face_finder, yunet_file
from export.serve.graph import Graph
from protocol.roles import FACES, MAX_PHOTO_SIDE


class FacesGraph(nn.Module):
    """image uint8 [H, W, 3] -> boxes [64, 4], landmarks [64, 5, 2], scores [64], as ``networks.yunet.FaceFinder``.

    Backends that know no bounds get no more work than that of the largest photo: what lies beyond it is ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finder = face_finder()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        found: tuple[Tensor, Tensor, Tensor] = self.finder(image[:MAX_PHOTO_SIDE, :MAX_PHOTO_SIDE])
        return found


def faces_graph() -> Graph:
    """The graph; its photo has any size."""
    return Graph(
        name=FACES,
        build=FacesGraph,
        # Of no size that the exporter could take for a constant.
        inputs={"image": torch.zeros(300, 500, 3, dtype=torch.uint8)},
        outputs=("boxes", "landmarks", "scores"),
        weights=(yunet_file(),),
        batched=False,
        dynamic={"image": {0: "height", 1: "width"}},
    )
