"""Colour jitter and grayscale of batches, each sample with its own factors.

Per sample equal to torchvision.transforms.v2.functional on float images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green, blue
TINY = 1e-12  # stands in for the colour spread of a grey pixel, whose hue does not matter


def change_where(
    images: Float[Tensor, "n c h w"], chosen: Bool[Tensor, " n"], change: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n c h w"]:
    """The images with the chosen samples changed (`chosen` is on the CPU); uses `images` up."""
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return change(images)
    rows = rows.to(images.device)
    images[rows] = change(images[rows])
    return images


def grayscale(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Replace all three channels by their luma, in place."""
    red, green, blue = images.split(1, dim=1)
    return images.copy_((red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]))


def jitter(
    images: Float[Tensor, "n c h w"], order: Int[Tensor, "n 4"], factors: Float[Tensor, "n 4"]
) -> Float[Tensor, "n c h w"]:
    """Brightness, contrast, saturation and hue, each sample in its own order; uses `images` up.

    Args:
        images: values in [0, 1].
        order: a permutation of BRIGHTNESS .. HUE for every sample, on the CPU.
        factors: for every sample the three factors and the shift of hue in turns, on the CPU.
    """
    if images.shape[1] != 3:  # neither saturation nor hue: as if they had drawn no change
        factors = torch.cat([factors[:, :SATURATION], factors.new_tensor([[1.0, 0.0]]).expand(len(factors), 2)], 1)
    kind, factor = order.T, factors.gather(1, order).T  # by turn
    hue = kind == HUE
    keep = factor.masked_fill(hue, 1)
    blends = zip(keep, (1 - keep) * (kind == CONTRAST), (1 - keep) * (kind == SATURATION), strict=True)
    for shifted, shift, mixture in zip(hue, factor, blends, strict=True):
        if not shifted.all():
            images = blend(images, *mixture)
        images = change_where(images, shifted, lambda some, shift=shift[shifted]: shift_hue(some, shift))
    return images


def blend(
    images: Float[Tensor, "n c h w"],
    keep: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
    saturation: Float[Tensor, " n"],
) -> Float[Tensor, "n c h w"]:
    """Clip `keep * image + contrast * mean grey level + saturation * grey level` to [0, 1].

    Brightness, contrast and saturation by a factor are this with keep = factor and at most one of the
    others at 1 - factor. Without three channels, grey is the mean of all and saturation has to be 0.
    """
    n, c, h, w = images.shape
    offset = _mean_grey(images) * contrast.to(images.device) if contrast.any() else None
    if saturation.any():
        mix = keep.view(-1, 1, 1) * torch.eye(3) + saturation.view(-1, 1, 1) * torch.tensor(LUMA)
        images = torch.bmm(mix.to(images.device), images.reshape(n, 3, h * w)).view(n, c, h, w)
    else:
        images.mul_(_per_sample(keep, images))
    if offset is not None:
        images.add_(_per_sample(offset, images))
    return images.clamp_(0, 1)


def _mean_grey(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    level = images.mean((2, 3))
    return level @ level.new_tensor(LUMA) if level.shape[1] == 3 else level.mean(1)


def shift_hue(images: Float[Tensor, "n c h w"], shift: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Turn the hue of each sample by its `shift` (in turns, -0.5 .. 0.5), in place; three channels only.

    With u = (channel - low) / (high - low), a pixel is 1 - u_red + u_green + u_blue sixths of a turn away
    from red, towards green or towards blue. Back from the hue, u_red = |6 hue - 3| - 1 and
    1 - u_green, 1 - u_blue = |6 hue - 2| - 1, |6 hue - 4| - 1, clipped to [0, 1]: no sectors, no branches.
    """
    if not shift.any():
        return images
    red, green, blue = images.split(1, dim=1)
    high = torch.maximum(red, green).clamp_min_(blue)
    low = torch.minimum(red, green).clamp_max_(blue)
    spread = high - low
    hue = (blue - low).add_(spread).add_(green).sub_(red).div_(spread.mul_(6).clamp_min_(TINY))
    hue.copysign_(torch.sub(green, blue, out=spread))
    hue.add_(_per_sample(shift + 1, images)).frac_().mul_(6)
    torch.lerp(low, high, _share(hue, 3, spread), out=red)
    torch.lerp(high, low, _share(hue, 2, spread), out=green)
    torch.lerp(high, low, _share(hue, 4, spread), out=blue)
    return images


def _share(hue: Float[Tensor, "n 1 h w"], centre: int, out: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    return torch.sub(hue, centre, out=out).abs_().sub_(1).clamp_(0, 1)


def _per_sample(values: Shaped[Tensor, " n"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
    return values.to(images, non_blocking=True).view(-1, 1, 1, 1)
