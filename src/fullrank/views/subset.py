"""Changing some samples of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

Rows = slice | Tensor  # of a batch; the tensor is on the CPU


def change_where(
    images: Shaped[Tensor, "m c h w"], part: slice, chosen: list[bool], change: Callable[[Tensor, Rows], Tensor]
) -> Shaped[Tensor, "m c h w"]:
    """The `part` of a batch that `images` are, with the chosen samples changed; uses `images` up.

    `chosen` is about the whole batch. `change` is given the chosen images and their rows in the batch.
    """
    here = chosen[part]
    if not any(here):
        return images
    if all(here):
        return change(images, part)
    rows = torch.tensor([row for row, is_chosen in enumerate(here) if is_chosen])
    where = rows.to(images.device)
    return images.index_copy_(0, where, change(images.index_select(0, where), rows + part.start))
