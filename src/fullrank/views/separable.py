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


def apply_separable(
    images: Float[Tensor, "n c h w"], rows: list[Block], columns: list[Block], out: Float[Tensor, "n c s s"]
) -> Float[Tensor, "n c s s"]:
    """`rows @ image @ columns.T` for every channel, each sample with its own two matrices.

    The blocks of either matrix cover all its outputs. `out` may be the images themselves.
    """
    (n, c, h, w), size = images.shape, out.shape[-1]
    source = images.reshape(n, c * h, w)
    wide = images.new_empty(n, c * h, size)
    for made, used, weights in columns:
        torch.bmm(source[:, :, used], weights.mT, out=wide[:, :, made])
    source, result = wide.view(n * c, h, size), out.view(n * c, size, size)
    for made, used, weights in rows:
        each = weights.unsqueeze(1).expand(-1, c, -1, -1).reshape(n * c, *weights.shape[1:])
        torch.bmm(each, source[:, used], out=result[:, made])
    return out
