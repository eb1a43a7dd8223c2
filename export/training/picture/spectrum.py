"""The loss of local spectra: how strong each texture is at each place, wherever its lines lie.

The looks learned, by ST-LPIPS at 256 px, to fill hair and skin with a mesh, which that distance likes better than
nothing. Its lines are regular: in a spectrum they stand out. Absolute errors take such a texture away, and put none in
its place, because no code says where each hair lies. Amplitudes do not ask where.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOWS = (16, 32)  # px
OVER = 4.0  # a texture too many costs this much more than one too few
# Luma, and two differences of colours.
COLOURS = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))


class Spectra(nn.Module):
    """The mean difference of the amplitudes of local spectra, in Hann windows that overlap by half.

    A picture and the true one, both float32 [B, 3, S, S] -> float32 [B].
    """

    colours: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colours", torch.tensor(COLOURS), persistent=False)
        for side in WINDOWS:
            row = torch.hann_window(side)
            self.register_buffer(f"window{side}", torch.outer(row, row), persistent=False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        apart = [self._of(image, n) - self._of(target, n) for n in WINDOWS]
        return torch.stack([(d.abs() + OVER * F.relu(d)).flatten(1).mean(1) for d in apart]).mean(0)

    def _of(self, image: Tensor, side: int) -> Tensor:
        # [B, 3, S, S] -> [B, 3, rows, columns, side, side // 2 + 1]
        x = torch.einsum("oc,bchw->bohw", self.colours, image)
        patches = x.unfold(2, side, side // 2).unfold(3, side, side // 2)
        patches = (patches - patches.mean((-1, -2), keepdim=True)) * self.get_buffer(f"window{side}")
        found = torch.fft.rfft2(patches, norm="ortho")
        strength: Tensor = (found.real.square() + found.imag.square() + 1e-6).sqrt()
        return strength
