"""Hue shifts of batches as clipped linear maps: no conversion to hue and back, no sectors, no branches.

A pixel has a low and a high value, and its hue says where between them its channels lie: they move along
the trapezoid 0 0 1 1 1 0 over the six sixths of a turn, each a third of a turn behind the one before. Let
u = (red, green, blue) scaled so that low is 0 and high is 1. Then a shift by 0 <= s <= 1/2 sixths gives

    red' = clip(1 - s + red - green - max(0, blue - 2 s), 0, 1)

and for 1/2 <= s <= 1 the last term is + max(0, blue - 2 (1 - s)); green and blue follow in turn. A negative
shift exchanges the other two channels, and a whole third of a turn only renames all three. Unscaled, each
channel is a sum of the channels, of the channels raised to a level between low and high, and of low and
high, clipped to low and high.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from fullrank.views.subset import Rows


class HueShift:
    """A shift of the hue of a batch, each sample by its own part of a turn.

    Per sample equal to torchvision's `adjust_hue` on float images, of any range.

    Args:
        turns: the shifts, -0.5 .. 0.5, on the CPU.
        device: where the images are.
    """

    def __init__(self, turns: Float[Tensor, " n"], device: torch.device) -> None:
        thirds = (3 * turns).round()
        sixths = 6 * turns - 2 * thirds  # -1 .. 1
        size, beyond = sixths.abs(), sixths.abs() > 0.5
        sign = torch.where(beyond, 1.0, -1.0)
        level = torch.where(beyond, 2 - 2 * size, 2 * size)
        first = (torch.arange(3) - thirds.long().unsqueeze(1)) % 3  # (n, 3): what red, green, blue come from
        step = torch.where(sixths >= 0, 1, 2).unsqueeze(1)
        second, third = (first + step) % 3, (first - step) % 3
        low, high = size - sign * (1 - level), 1 - size - sign * level
        plain = (one_hot(first, 3) - one_hot(second, 3)).float()  # (n, 3, 3)
        raised = sign.view(-1, 1, 1) * one_hot(third, 3)  # (n, 3, 3)
        bounds = torch.stack([low, high], 1).unsqueeze(1).repeat(1, 3, 1)  # (n, 3, 2)
        self.weights = torch.cat([plain, bounds, raised], 2).to(device)  # (n, 3, 8)
        self.level = level.view(-1, 1, 1).to(device)

    def __call__(self, images: Float[Tensor, "m 3 h w"], rows: Rows) -> Float[Tensor, "m 3 h w"]:
        """Shift the hue of the images that are these `rows` of the batch; uses them up."""
        flat = images.flatten(2)
        summed = flat.new_empty(len(flat), 8, flat.shape[2])  # the channels, low and high, the raised channels
        red, green, blue = flat.unbind(1)
        low, high = summed[:, 3:4], summed[:, 4:5]
        torch.minimum(torch.minimum(red, green, out=low[:, 0]), blue, out=low[:, 0])
        torch.maximum(torch.maximum(red, green, out=high[:, 0]), blue, out=high[:, 0])
        summed[:, :3] = flat
        torch.maximum(flat, torch.lerp(low, high, self.level[rows]), out=summed[:, 5:])
        return torch.clamp(torch.bmm(self.weights[rows], summed), low, high, out=flat).view(images.shape)
