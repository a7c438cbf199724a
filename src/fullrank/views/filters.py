"""Gaussian blur and solarize of batches.

Per sample equal to torchvision.transforms.v2.functional on float images.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.views.separable import Separable

# In units of the precision: lighter taps change nothing, and their denormal products are very slow on CPUs.
LIGHTEST_TAP = 0.01
TILES = range(8, 33)  # sides that a tile may have: larger ones multiply more zeros, smaller ones take more calls
BEST_TILE = 16
WHOLE = 64  # pixels a side up to which a view is one tile


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
        tiles = [side for side in TILES if size % side == 0]
        self.bands = []
        if device.type == "cpu" and size > WHOLE and tiles:
            tile = min(tiles, key=lambda side: abs(side - BEST_TILE))
            self.bands = [_band(row[None, _support(row)], tile)[0] for row in _gaussian_taps(sigma, kernel_size, size)]
        else:
            matrix = gaussian_matrix(sigma, kernel_size, size, device)
            self.whole = Separable(matrix, matrix, channels)

    def __call__(self, images: Float[Tensor, "m c s s"], part: slice) -> Float[Tensor, "m c s s"]:
        """Blur, in place, the images that are this `part` of the batch."""
        if not self.bands:
            return self.whole(images, part, out=images)
        for image, band in zip(images, self.bands[part], strict=True):
            _blur_in_tiles(image, band)
        return images


def gaussian_matrix(
    sigma: Float[Tensor, " n"], kernel_size: int, size: int, device: torch.device
) -> Float[Tensor, "n {size} {size}"]:
    """The blur of one side of `size` pixels, mirrored at its ends, as a matrix for each sample."""
    return _folded(_band(_gaussian_taps(sigma, kernel_size, size).to(device), size), size)


def _gaussian_taps(sigma: Float[Tensor, " n"], kernel_size: int, size: int) -> Float[Tensor, "n taps"]:
    radius = min(kernel_size // 2, size - 1)
    offset = torch.arange(-radius, radius + 1) / sigma.unsqueeze(1)
    taps = torch.softmax(-0.5 * offset.square(), dim=1)
    return torch.threshold(taps, LIGHTEST_TAP * torch.finfo(taps.dtype).eps, 0)


def _support(taps: Float[Tensor, " taps"]) -> slice:
    """The middle taps, of which at least one is not zero at either end."""
    first = int((taps > 0).int().argmax())
    return slice(first, len(taps) - first)


def _band(taps: Float[Tensor, "n taps"], tile: int) -> Float[Tensor, "n {tile} used"]:
    """The matrix that filters `tile` outputs from as many inputs and the border on both sides."""
    n, k = taps.shape
    memory = taps.new_zeros(n, tile, tile + k)
    memory[:, :, :k] = taps.unsqueeze(1)
    # Read with rows one shorter than they were written, each row starts one column further right.
    return memory.flatten(1)[:, : tile * (tile + k - 1)].view(n, tile, tile + k - 1)


def _folded(band: Float[Tensor, "n s used"], size: int) -> Float[Tensor, "n s s"]:
    """The band of a whole image, what falls off the image folded back onto it."""
    radius = (band.shape[2] - size) // 2
    weights = band[:, :, radius : radius + size].clone()
    if radius:
        weights[:, :, 1 : radius + 1] += band[:, :, :radius].flip(2)
        weights[:, :, size - 1 - radius : -1] += band[:, :, radius + size :].flip(2)
    return weights


def _blur_in_tiles(image: Float[Tensor, "c s s"], band: Float[Tensor, "tile used"]) -> None:
    """Blur one contiguous image in place: all tiles of a side are one batch of products with the same band."""
    (channels, size, _), (tile, used) = image.shape, band.shape
    radius, tiles = (used - tile) // 2, size // tile
    padded = size + 2 * radius
    wide = image.new_empty(channels * size, padded)
    wide[:, radius : radius + size] = image.view(-1, size)
    _mirror(wide.T, radius)
    source = wide.as_strided((tiles, channels * size, used), (tile, padded, 1))
    made = image.as_strided((tiles, channels * size, tile), (tile, size, 1), image.storage_offset())
    torch.bmm(source, band.T.expand(tiles, used, tile), out=made)
    tall = image.new_empty(channels, padded, size)
    tall[:, radius : radius + size] = image
    _mirror(tall.transpose(0, 1), radius)
    for rows, channel in zip(tall, image, strict=True):
        source = rows.as_strided((tiles, used, size), (tile * size, size, 1))
        torch.bmm(band.expand(tiles, tile, used), source, out=channel.view(tiles, tile, size))


def _mirror(rows: Float[Tensor, "padded ..."], radius: int) -> None:
    """Fill the border rows with those inside, mirrored at the outermost."""
    if radius:
        rows[:radius] = rows[radius + 1 : 2 * radius + 1].flip(0)
        rows[-radius:] = rows[-2 * radius - 1 : -radius - 1].flip(0)


def solarize(images: Float[Tensor, "n c h w"], threshold: float) -> Float[Tensor, "n c h w"]:
    """Invert all values from `threshold` up."""
    bright = torch.ge(images, threshold, out=torch.empty_like(images))
    return torch.lerp(images, 1 - images, bright)
