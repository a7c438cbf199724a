"""Linear maps that act on the rows and on the columns of an image: crops, resizes and blurs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Block(NamedTuple):
    """A part of one matrix a sample: the outputs `made` from the inputs `used`; the rest is zero."""

    made: slice
    used: slice
    weights: Float[Tensor, "n made used"]


class Separable:
    """`rows @ image @ columns.T` for every channel of a batch, each sample with its own two matrices.

    The blocks of either matrix cover all its outputs. All of it is batched matrix products.
    """

    def __init__(self, rows: list[Block], columns: list[Block], channels: int) -> None:
        # One product mixes the columns of all channels, but the rows need one for each.
        self.rows = [b._replace(weights=b.weights.repeat_interleave(channels, 0)) for b in rows]
        self.columns = [b._replace(weights=b.weights.mT.contiguous()) for b in columns]

    def __call__(
        self, images: Float[Tensor, "m c h w"], part: slice, out: Float[Tensor, "m c s s"]
    ) -> Float[Tensor, "m c s s"]:
        """Map the `part` of the batch that `images` are; `out` may be the images themselves."""
        (m, c, h, w), size = images.shape, out.shape[-1]
        source, wide = images.reshape(m, c * h, w), images.new_empty(m, c * h, size)
        for made, used, weights in self.columns:
            torch.bmm(source[:, :, used], weights[part], out=wide[:, :, made])
        source, result, each = (
            wide.view(m * c, h, size),
            out.view(m * c, size, size),
            slice(part.start * c, part.stop * c),
        )
        for made, used, weights in self.rows:
            torch.bmm(weights[each], source[:, used], out=result[:, made])
        return out
