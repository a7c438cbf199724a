"""Gaussian blur and solarize of batches.

Per sample equal to torchvision.transforms.v2.functional on float images.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.views.separable import Block, Separable

# Lighter taps change nothing at float32's precision, and their denormal products are very slow on CPUs.
LIGHTEST_TAP = 1e-9
TILE = 32  # rows of the banded matrix multiplied together on a CPU: small tiles skip more zeros


class GaussianBlur:
    """Blur of a batch of square views, each sample with its own standard deviation.

    Equal to torchvision's at the same odd `kernel_size`, with mirrored borders. An image needs
    (kernel_size + 1) / 2 pixels to mirror; a smaller one takes the largest kernel that fits.

    Args:
        sigma: standard deviations in pixels, on the CPU.
        kernel_size: taps of the filter, an odd number.
        size: side of the views in pixels.
        channels: of the views.
        device: where the views are.
    """

    def __init__(
        self, sigma: Float[Tensor, " n"], kernel_size: int, size: int, channels: int, device: torch.device
    ) -> None:
        radius = min(kernel_size // 2, size - 1)
        tile = TILE if device.type == "cpu" and size > 2 * TILE else size
        band = _band(_gaussian_taps(sigma, radius).to(device), tile)
        blocks = [_mirrored(band, start, min(start + tile, size), size) for start in range(0, size, tile)]
        self.apply = Separable(blocks, blocks, channels)

    def __call__(self, images: Float[Tensor, "m c s s"], part: slice) -> Float[Tensor, "m c s s"]:
        """Blur, in place, the images that are this `part` of the batch."""
        return self.apply(images, part, out=images)


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
    used = slice(start - radius + before, stop + radius - after)
    weights = band[:, : stop - start]
    if before or after:
        width = stop - start + 2 * radius
        mirror = weights
        weights = mirror[:, :, before : width - after].clone()
        weights[:, :, 1 : before + 1] += mirror[:, :, :before].flip(2)
        weights[:, :, weights.shape[2] - 1 - after : -1] += mirror[:, :, width - after : width].flip(2)
    return Block(slice(start, stop), used, weights)


def solarize(images: Float[Tensor, "n c h w"], threshold: float) -> Float[Tensor, "n c h w"]:
    """Invert all values from `threshold` up."""
    bright = torch.ge(images, threshold, out=torch.empty_like(images))
    return torch.lerp(images, 1 - images, bright)
