"""Linear maps that act on the rows and on the columns of an image: crops, resizes and blurs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Separable:
    """`rows @ image @ columns.T` for every channel of a batch, each sample with its own two matrices."""

    def __init__(self, rows: Float[Tensor, "n s h"], columns: Float[Tensor, "n s w"], channels: int) -> None:
        # One product mixes the columns of all channels, but the rows need one for each.
        self.rows = rows.repeat_interleave(channels, 0)
        self.columns = columns.mT.contiguous()

    def __call__(
        self, images: Float[Tensor, "m c h w"], part: slice, out: Float[Tensor, "m c s s"]
    ) -> Float[Tensor, "m c s s"]:
        """Map the `part` of the batch that `images` are; `out` may be the images themselves."""
        (m, c, h, w), size = images.shape, out.shape[-1]
        wide = torch.bmm(images.reshape(m, c * h, w), self.columns[part])
        each = slice(part.start * c, part.stop * c)
        torch.bmm(self.rows[each], wide.view(m * c, h, size), out=out.view(m * c, size, size))
        return out
