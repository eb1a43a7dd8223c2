"""What a step of W costs beside what it is for: how much of the person it changes, and of what lies around the face.

A small step d costs d' A d, where A is the mean over samples of J' J, and J is the Jacobian, by w, of two face
descriptors and of the picture around the face. SFace, which judges results, is not among them. Each sample gives one
random projection of the rows of J: the mean of (J' v) (J' v)' is J' J where v is white.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from assets.descriptor import descriptor
from assets.face_net import face_net
from export.samples import at_size
from networks.close_ups import DLIB, FACE_NET
from networks.generator_file import Generator
from networks.similarity import IDENTITY

PSI = (0.6, 1.0)
SIDE = 32  # of the picture whose surroundings count
FACE = (0.0, 0.1, 0.55, 0.75)  # an ellipse about an aligned face, in [-1, 1]: its centre and its half-axes
AROUND = 0.125  # weight of the surroundings beside the descriptors of unit length: four fifths of the cost


def cost(generator: Generator, covariance: Tensor, *, count: int, seed: int = 0) -> Tensor:
    """The matrix A, of a generator of aligned faces.

    Args:
        generator: renders ``count`` samples.
        covariance: float64 [512, 512], of W.
        count: how many samples; 300 are enough.
        seed: of what is drawn.

    Returns:
        float64 [512, 512]. A random step, as long as W is wide, costs 1.
    """
    rng, around = torch.Generator().manual_seed(seed), surroundings()
    networks = (descriptor(), DLIB), (face_net(), FACE_NET)
    total = torch.zeros_like(covariance)
    for _ in tqdm(range(count), desc="samples changed", disable=None):
        psi = PSI[0] + (PSI[1] - PSI[0]) * torch.rand((), generator=rng)
        w = generator.mapping(torch.randn(1, 512, generator=rng), float(psi)).requires_grad_()  # [1, 512]
        image = at_size(generator.synthesis(w[:, None].expand(-1, generator.synthesis.num_styles, -1)))
        seen = [F.normalize(network(crop(image, IDENTITY[None])), dim=1) for network, crop in networks]
        seen.append(AROUND * around * F.adaptive_avg_pool2d(image, SIDE))
        projected = torch.stack([(torch.randn(x.shape, generator=rng) * x).sum() for x in seen]).sum()
        (gradient,) = torch.autograd.grad(projected, w)
        total += gradient[0].double().outer(gradient[0].double())
    return total / (total * covariance).sum()


def surroundings() -> Tensor:
    """float32 [SIDE, SIDE], 1 where no aligned face is."""
    places = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    x, y, width, height = FACE
    outside = ((places - x) / width).square() + ((places[:, None] - y) / height).square() > 1
    return outside.float()
