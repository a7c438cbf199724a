"""Colour jitter and grayscale of batches, each sample with its own factors.

Per sample equal to torchvision.transforms.v2.functional on float images in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fullrank.views.hue import HueShift
from fullrank.views.subset import change_where

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
UNCHANGED = (1.0, 1.0, 1.0, 0.0)  # the factors that change nothing
DARKEST = 1e-6  # the least factor: it stands for 0, and can be divided by
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green, blue


class Stored(NamedTuple):
    """A batch of images kept as `scale * x + offset`."""

    x: Float[Tensor, "n c h w"]
    scale: Float[Tensor, "n 1 1 1"]
    offset: Float[Tensor, "n 1 1 1"]


class Jitter:
    """Brightness, contrast, saturation and hue of a batch, each sample in its own order.

    The first three are `factor * image + (1 - factor) * target` clipped to [0, 1], where the target is
    black, the mean grey level, or the grey level. Grey is the luma of three channels; for any other
    number it is the mean of all, and neither saturation nor hue change anything. Grayscale, at the end or the
    start, is one turn more: saturation by a factor of 0.

    An image is stored as `scale * x + offset`, with two numbers a sample, and hue, saturation and blur
    commute with that. So brightness and contrast change only the two numbers, and touch the pixels only
    to clip them, which a factor of at most 1 never asks for.

    Args:
        order: a permutation of BRIGHTNESS .. HUE for every sample, on the CPU.
        factors: for every sample the three factors and the shift of the hue in turns (-0.5 .. 0.5), on
            the CPU; `UNCHANGED` for a sample that is to stay as it is.
        grayscale: which samples lose their colours, on the CPU.
        channels: of the images.
        device: where the images are.
        grayscale_first: whether they do so before the others' turns, not after them.
    """

    def __init__(
        self,
        order: Int[Tensor, "n 4"],
        factors: Float[Tensor, "n 4"],
        grayscale: Bool[Tensor, " n"],
        channels: int,
        device: torch.device,
        *,
        grayscale_first: bool = False,
    ) -> None:
        kind = torch.cat([order, torch.full((len(order), 1), SATURATION)], 1).T  # (5, n): by turn
        factor = torch.cat([factors.gather(1, order), (~grayscale).float().unsqueeze(1)], 1).T
        if grayscale_first:
            kind, factor = kind.roll(1, 0), factor.roll(1, 0)
        if channels != 3:
            factor, kind = factor.where(kind < SATURATION, 1), kind.where(kind < SATURATION, BRIGHTNESS)
        grey = torch.tensor(LUMA) if channels == 3 else torch.full((channels,), 1 / channels)
        hue, saturated = kind == HUE, kind == SATURATION
        factor = factor.where(hue, factor.clamp_min(DARKEST))
        keep = factor.masked_fill(hue, 1)
        pull = 1 - keep  # towards the target
        # Which samples take part is known here, so that nothing waits for a GPU later.
        self.shifted, self.blended = (hue & (factor != 0)).tolist(), (keep != 1).tolist()
        self.contrasted, self.washed = ((kind == CONTRAST) & (keep != 1)).tolist(), (saturated & (keep != 1)).tolist()
        self.expanded = (keep > 1).tolist()
        self.luma = torch.tensor(LUMA, device=device).expand(len(order), 1, 3)
        self.colour = keep.where(saturated, 1)[..., None, None].to(device).unbind()  # by turn: (n, 1, 1)
        self.gain = _by_turn(keep.masked_fill(saturated, 1).unsqueeze(2), device)
        self.carry = _by_turn((keep + pull * (kind != BRIGHTNESS) * grey.sum()).unsqueeze(2), device)
        self.contrast = _by_turn((pull * (kind == CONTRAST)).unsqueeze(2) * grey, device)
        self.hue = HueShift(factors[:, HUE], device)

    def __call__(self, image: Stored, part: slice) -> Stored:
        """Jitter the `part` of the batch that is stored here, in [0, 1]; uses it up."""
        for turn in range(5):
            if any(self.blended[turn][part]):
                image = self._blend(image, turn, part)
            x, scale, offset = image
            image = Stored(change_where(x, part, self.shifted[turn], self.hue), scale, offset)
        return image

    def _blend(self, image: Stored, turn: int, part: slice) -> Stored:
        x, scale, offset = image
        offset = offset * self.carry[turn][part]
        if any(self.contrasted[turn][part]):
            offset += scale * (x.mean((2, 3), keepdim=True) * self.contrast[turn][part]).sum(1, keepdim=True)
        if any(self.washed[turn][part]):
            flat = x.flatten(2)
            torch.lerp(torch.bmm(self.luma[part], flat), flat, self.colour[turn][part], out=flat)
        scale = scale * self.gain[turn][part]
        if any(self.expanded[turn][part]):
            x.clamp_min_(-offset / scale).clamp_max_((1 - offset) / scale)
        return Stored(x, scale, offset)


def _by_turn(values: Float[Tensor, "turns n c"], device: torch.device) -> tuple[Float[Tensor, "n c 1 1"], ...]:
    return values[..., None, None].to(device).unbind()
