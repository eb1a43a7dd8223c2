"""P-norm+: a whitened latent space in which W is near a standard normal (Zhu et al., arXiv 2012.09036, section 3.2).

The mapping network ends in LeakyReLU(0.2). LeakyReLU(5) undoes it, and the result is centred and PCA-whitened:
``v = diag(lambda)^-1/2 C^T (LeakyReLU_5(w) - mu)``. BDInvert's regulariser is the mean square of v.

The statistics (mu, lambda, C) belong to one generator. ``python -m export directions`` computes them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM

SLOPE = 0.2  # of the mapping network's last leaky ReLU
_BUFFERS = ("mean", "eigenvalues", "eigenvectors")


class PNorm(nn.Module):
    """The transform w -> v and back.

    Buffers, float32: ``mean`` [512] (mu), ``eigenvalues`` [512] (lambda, in descending order), ``eigenvectors``
    [512, 512] (C, one per column). The eigenvalues range from 3e1 to 1e-7: the last components of v react to changes
    of w that no image shows.
    """

    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(STYLE_DIM))
        self.register_buffer("eigenvalues", torch.ones(STYLE_DIM))
        self.register_buffer("eigenvectors", torch.eye(STYLE_DIM))

    def forward(self, w: Tensor) -> Tensor:
        """Whiten styles.

        Args:
            w: float32 [..., 512]: W, W+ or w_M+.

        Returns:
            v: float32 [..., 512], of mean 0 and variance 1 over mapped w.
        """
        assert w.shape[-1] == STYLE_DIM
        p = F.leaky_relu(w, 1 / SLOPE)
        return (p - self.mean) @ self.eigenvectors * self.eigenvalues.rsqrt()

    def inverse(self, v: Tensor) -> Tensor:
        """The inverse of :meth:`forward`.

        Args:
            v: float32 [..., 512].

        Returns:
            w: float32 [..., 512].
        """
        assert v.shape[-1] == STYLE_DIM
        p = (v * self.eigenvalues.sqrt()) @ self.eigenvectors.T + self.mean
        return F.leaky_relu(p, SLOPE)


def load_pnorm(path: Path) -> PNorm:
    """The transform with the statistics in the safetensors file ``path``."""
    tensors = load_file(path)
    pnorm = PNorm()
    pnorm.load_state_dict({name: tensors[name] for name in _BUFFERS})
    return pnorm
