"""Views that are cut into a puzzle of square pieces, each at a random place near its own."""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from fullrank.views.recipe import View


def draw_corners(view: View, n: int) -> Int[Tensor, "n k 2"]:
    """Row and column of the upper left corner of each of the k pieces of n views, from torch's default generator.

    Where fewer are kept than the grid has, it is random which; they come in random order or row by row.
    """
    order = torch.rand(n, view.grid**2).argsort(1)[:, : view.pieces or view.grid**2]
    if not view.shuffle:
        order = order.sort(1).values
    places = torch.stack([order // view.grid, order % view.grid], 2)
    step = (view.size - view.piece - view.shift) // (view.grid - 1)
    return places * step + torch.randint(view.shift + 1, places.shape)


def cut(
    images: Shaped[Tensor, "n c h w"], corners: Int[Tensor, "n k 2"], piece: int
) -> Shaped[Tensor, "n k c {piece} {piece}"]:
    """Squares of `piece` pixels a side with these corners (row, column), those of a view in the order given.

    The puzzles of PIRL (`ImgPatchesFromTensor` in facebookresearch/vissl, which counts the grid by columns), InfoMin
    (`JigsawCrop` in HobbitLong/PyContrast, by rows) and OBoW (`CropImagePatches` in valeoai/obow, where they overlap).
    """
    windows = images.unfold(2, piece, 1).unfold(3, piece, 1)  # (n, c, rows, columns, piece, piece), no copy
    sample = torch.arange(len(images), device=images.device).unsqueeze(1)
    row, column = corners.to(images.device).unbind(2)
    return windows[sample, :, row, column]
