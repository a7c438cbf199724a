"""Changing some samples of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

Rows = slice | Tensor


def change_where(
    images: Shaped[Tensor, "n c h w"], chosen: list[bool], change: Callable[[Tensor, Rows], Tensor]
) -> Shaped[Tensor, "n c h w"]:
    """The images with the chosen samples changed; uses `images` up.

    `change` is given those images and their rows (on the CPU), to look up what belongs to them.
    """
    if not any(chosen):
        return images
    if all(chosen):
        return change(images, slice(None))
    rows = torch.tensor([row for row, is_chosen in enumerate(chosen) if is_chosen])
    where = rows.to(images.device)
    return images.index_copy_(0, where, change(images.index_select(0, where), rows))
