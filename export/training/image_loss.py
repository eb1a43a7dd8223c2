"""The paper's training loss: ||G(E(I), w_M+) - I||^2 + lambda * perceptual (BDInvert, section 3.2), at 256 px. The
perceptual network is ST-LPIPS with Alex, so that the VGG variant stays an independent measure, at a tenth of its cost.
Beyond the paper, a distance of face descriptors can be added (:mod:`export.training.identity_loss`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assets.compiled import compile_function
from assets.perceptual import stlpips
from export.samples import at_size
from export.training.identity_loss import IdentityLoss
from networks.generator_file import Generator
from networks.precision import half


class RenderedLoss(nn.Module):
    """Loss of rendered codes: mean square error, perceptual distance and, if weighted, distance of identities."""

    def __init__(
        self,
        generator: Generator,
        *,
        perceptual_weight: float,
        identity_weight: float = 0.0,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.synthesis = generator.synthesis
        self.perceptual = stlpips("alex").to(device)
        self.perceptual_weight, self.identity_weight = perceptual_weight, identity_weight
        self.identity = IdentityLoss().to(device) if identity_weight else None
        self._render = compile_function(self.render) if compiled else self.render

    def render(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """f [B, 512, cut, cut], w_m_plus [B, n, 512] -> images [B, 3, 256, 256], area-averaged."""
        with half(f.device):
            image = self.synthesis.fine(f, w_m_plus).float()
        return at_size(image)

    def forward(self, f: Tensor, w_m_plus: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """Loss of each sample.

        Args:
            f: float32 [B, 512, cut, cut].
            w_m_plus: float32 [B, n, 512], the styles behind the cut.
            target: float32 [B, 3, 256, 256] in [-1, 1].
            theta: float32 [B, 2, 3], how the target was moved.

        Returns:
            float32 [B].
        """
        image = self._render(f, w_m_plus)
        square = (image - target).square().mean(dim=(1, 2, 3))
        distance: Tensor = self.perceptual(image, target).flatten()
        total = square + self.perceptual_weight * distance
        return total if self.identity is None else total + self.identity_weight * self.identity(image, target, theta)


def sample_by_sample(loss: Callable[..., Tensor], codes: tuple[Tensor, ...], *known: Tensor) -> Tensor:
    """Mean loss of a batch, with the memory of one sample; on a GPU, all at once.

    On a CPU one at a time is also the fastest, because the maps of one image fit its cache.

    Args:
        loss: from ``codes`` and ``known`` to float32 [B].
        codes: what gradients are wanted for, [B, ...] each.
        known: what none are wanted for, [B, ...] each.

    Returns:
        A scalar that gives its gradients to ``codes``.
    """
    leaves = [code.detach().requires_grad_() for code in codes]
    count = len(codes[0])
    step = count if codes[0].is_cuda else 1
    total = 0.0
    for i in range(0, count, step):
        values = loss(*(x[i : i + step] for x in (*leaves, *known)))
        (values.sum() / count).backward()  # type: ignore[no-untyped-call]
        total += values.sum().item() / count
    proxy = sum((code * leaf.grad).sum() for code, leaf in zip(codes, leaves, strict=True) if leaf.grad is not None)
    assert isinstance(proxy, Tensor)
    return proxy - proxy.detach() + total
