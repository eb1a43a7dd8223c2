"""Weights of the critics' terms: too strong, critics take the person; too weak, they change nothing.

As VQGAN does (Esser et al., CVPR 2021, eq. 7), weights are set by what each term pulls at the last layers. Not at the
code: all pictures of a batch are pulled one way by a critic, and each its own way by what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FOLLOWS = 0.2  # how fast weights follow


class Balance:
    """Weights of the critics' terms.

    Args:
        last: parameters of the last layers.
        shares: of each term, what it pulls, as a share of what all others do.

    Attributes:
        weights: of each term, 0 at first.
    """

    def __init__(self, last: Sequence[Tensor], shares: Mapping[str, float]) -> None:
        self.last, self.shares = tuple(last), dict(shares)
        self.weights = dict.fromkeys(shares, 0.0)

    def weigh(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Set the weights of ``terms``, scalars, beside ``loss``, the sum of all others. Both keep their graphs."""
        own = self._pull(loss)
        for name, term in terms.items():
            theirs = self._pull(term)
            if theirs > 0:
                wanted = self.shares[name] * own / theirs
                self.weights[name] += FOLLOWS * (wanted - self.weights[name])

    def sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of ``terms``, a scalar."""
        weighted = [self.weights[name] * term for name, term in terms.items()]
        return torch.stack(weighted).sum() if weighted else torch.zeros((), device=self.last[0].device)

    def _pull(self, term: Tensor) -> float:
        grads = torch.autograd.grad(term, self.last, retain_graph=True, allow_unused=True)
        squares = [grad.square().sum() for grad in grads if grad is not None]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
