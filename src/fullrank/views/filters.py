"""Gaussian blur and solarize of batches.

Per sample equal to torchvision.transforms.v2.functional on float images.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.views.separable import Block, apply_separable

# Lighter taps change nothing at float32's precision, and their denormal products are very slow on CPUs.
LIGHTEST_TAP = 1e-9
REACH = 6.5  # beyond 6.4 sigma a tap is lighter than that
TILE = 32  # rows of the banded matrix multiplied together on a CPU: small tiles skip more zeros


def gaussian_blur(
    images: Float[Tensor, "n c s s"], sigma: Float[Tensor, " n"], kernel_size: int
) -> Float[Tensor, "n c s s"]:
    """Blur each sample with its own standard deviation (pixels; on the CPU), with mirrored borders.

    Equal to torchvision's at the same odd `kernel_size`. An image needs (kernel_size + 1) / 2 pixels to
    mirror; a smaller one takes the largest kernel that fits.
    """
    size = images.shape[-1]
    radius = min(kernel_size // 2, size - 1)
    reach = min(radius, math.ceil(REACH * sigma.max().item()))
    taps = _gaussian_taps(sigma, radius)[:, radius - reach : radius + reach + 1]
    tile = TILE if images.device.type == "cpu" and size > 2 * TILE else size
    band = _band(taps.to(images.device), tile)
    blocks = [_mirrored(band, start, min(start + tile, size), size) for start in range(0, size, tile)]
    return apply_separable(images, blocks, blocks, size)


def _gaussian_taps(sigma: Float[Tensor, " n"], radius: int) -> Float[Tensor, "n taps"]:
    offset = torch.arange(-radius, radius + 1) / sigma.unsqueeze(1)
    return torch.threshold(torch.softmax(-0.5 * offset.square(), dim=1), LIGHTEST_TAP, 0)


def _band(taps: Float[Tensor, "n taps"], tile: int) -> Float[Tensor, "n {tile} used"]:
    """The matrix that filters `tile` outputs from as many inputs and the border on both sides."""
    n, k = taps.shape
    memory = taps.new_zeros(n, tile, tile + k)
    memory[:, :, :k] = taps.unsqueeze(1)
    # Read with rows one shorter than they were written, each row starts one column further right.
    return memory.flatten(1)[:, : tile * (tile + k - 1)].view(n, tile, tile + k - 1)


def _mirrored(band: Float[Tensor, "n tile used"], start: int, stop: int, size: int) -> Block:
    """The band for the outputs start .. stop, what falls off the image folded back onto it."""
    radius = (band.shape[2] - band.shape[1]) // 2
    before, after = max(0, radius - start), max(0, stop + radius - size)
    weights = band[:, : stop - start, : stop - start + 2 * radius]
    width = weights.shape[2]
    inside = weights[:, :, before : width - after]
    if before or after:
        inside = inside.clone()
        inside[:, :, 1 : before + 1] += weights[:, :, :before].flip(2)
        inside[:, :, inside.shape[2] - 1 - after : -1] += weights[:, :, width - after :].flip(2)
    return Block(slice(start, stop), slice(start - radius + before, stop + radius - after), inside)


def solarize(images: Float[Tensor, "n c h w"], threshold: float) -> Float[Tensor, "n c h w"]:
    """Invert all values from `threshold` up."""
    bright = torch.ge(images, threshold, out=torch.empty_like(images))
    return torch.lerp(images, 1 - images, bright)
