"""Pictures as sequences of patches, row by row: what masked methods predict."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def patchify(images: Float[Tensor, "n c h w"], patch: tuple[int, int]) -> Float[Tensor, "n t p"]:
    """Patches of the given height and width, each as its pixels (row, column, channel), the channel last.

    As in facebookresearch/mae; `torch.nn.functional.unfold` has the channel first.
    """
    n, channels, height, width = images.shape
    rows, columns = height // patch[0], width // patch[1]
    cells = images.reshape(n, channels, rows, patch[0], columns, patch[1])
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, -1)


def unpatchify(
    patches: Float[Tensor, "n t p"], patch: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "n c h w"]:
    """The images whose patches these are; `grid` is their number in a column and a row."""
    cells = patches.reshape(len(patches), *grid, *patch, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, grid[0] * patch[0], grid[1] * patch[1])


def standardise_patches(patches: Float[Tensor, "n t p"], eps: float = 1e-6) -> Float[Tensor, "n t p"]:
    """(x - mean) / sqrt(var + eps), both over all values of a patch, channels together; var is the unbiased one."""
    variance, mean = patches.var(-1, keepdim=True), patches.mean(-1, keepdim=True)
    return (patches - mean) / (variance + eps).sqrt()
