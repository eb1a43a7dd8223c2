"""The two looks for codes to edit: those that lie far from the generator's own are drawn to the encoder's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from networks.encoder import Encoder
from networks.looks import PHOTO, CodeLooks

LENGTH = 0.4  # of styles, in standard deviations: codes with longer ones are drawn


class DrawnLooks(nn.Module):
    """A photo's code by the two looks, and as much of the encoder's as it takes to edit it.

    For many photos the looks find codes that paint the face well at 256 px, but break in edits. Their styles are long.
    The encoder's f with the mean style edits, and shows another person. A code is drawn to it on a straight line, by as
    much as shortens its styles to ``LENGTH``: a truncation whose centre has the face in its place.

    Args:
        looks: the first and the second look.
        encoder: gives f^o.
    """

    def __init__(self, looks: CodeLooks, encoder: Encoder) -> None:
        super().__init__()
        self.looks, self.encoder = looks, encoder

    def forward(self, photo: Tensor, paint: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """As :meth:`CodeLooks.forward`."""
        f, w = self.looks(photo, paint)
        f_o, mean = self.encoder(F.avg_pool2d(photo, PHOTO // self.encoder.input_size)), self.looks.w_mean
        length = self.looks.normalise_w(w).square().mean(2).sqrt().mean(1)  # [B]
        psi = (LENGTH / length).clamp(max=1)[:, None, None]
        return f_o + psi[..., None] * (f - f_o), mean + psi * (w - mean)
