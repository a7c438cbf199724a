"""Which patches of a picture a masked method hides: random ones (MAE), one region (BEiT), several blocks (I-JEPA).

Made on the CPU out of draws that the caller may supply; grids are (rows, columns) of patches, numbered row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fullrank.errors import InputError

Grid = tuple[int, int]
Blocks = list[list[np.ndarray]]  # for every picture its blocks, each the sorted numbers of its patches
TRIES = 10  # at a block of BEiT's region
PATIENCE = 20  # placements of a context of I-JEPA before it may overlap one target more
MIN_KEEP = 10  # patches that I-JEPA's blocks have more of, as published
LOT = 256  # draws taken from torch at once


class Draws:
    """Random numbers one by one, from torch's default generator or a given one."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._numbers = self._lots(generator)

    @staticmethod
    def _lots(generator: torch.Generator | None) -> Iterator[float]:
        while True:
            yield from torch.rand(LOT, dtype=torch.float64, generator=generator).tolist()

    def uniform(self, start: float | int, end: float | int) -> float:
        """A number between `start` and `end`, whichever is larger."""
        return start + (end - start) * next(self._numbers)

    def below(self, bound: int) -> int:
        """A whole number in 0 .. bound - 1."""
        return int(bound * next(self._numbers))


def random_masks(
    noise: Float[Tensor, "n t"], ratio: float
) -> tuple[Int[Tensor, "n k"], Int[Tensor, "n h"], Int[Tensor, "n t"]]:
    """Patches that MAE keeps and hides, in the order of their noise, and the place of every patch among both.

    int(t (1 - ratio)) patches are kept, in floating point as in the authors' code: 1 of 20 at ratio 0.9. Patch i is
    hidden where its place is k or more. Code: facebookresearch/mae, models_mae.py `random_masking`.
    """
    order = noise.argsort(1)
    kept = int(noise.shape[1] * (1 - ratio))
    return order[:, :kept], order[:, kept:], order.argsort(1)


def grow_region(
    mask: np.ndarray, goal: int, *, smallest: int, largest: int | None = None, aspect: float = 0.3, draws: Draws
) -> Iterator[int]:
    """Hide blocks of the grid `mask` (True is hidden) until `goal` patches are; yields how many each block adds.

    A block has between `smallest` and `largest` patches and sides whose ratio is in aspect .. 1 / aspect, uniform in
    its logarithm; near the goal, where fewer are left, the range of its size runs backwards. It counts where it hides
    something new and not more than what is left; growth also ends where ten tries at a block fail.
    Code: microsoft/unilm, beit/masking_generator.py.
    """
    height, width = mask.shape
    while (left := goal - int(mask.sum())) > 0:
        room = left if largest is None else min(left, largest)
        for _ in range(TRIES):
            area = draws.uniform(smallest, room)
            ratio = math.exp(draws.uniform(math.log(aspect), -math.log(aspect)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h >= height or w >= width:
                continue
            top, start = draws.below(height - h + 1), draws.below(width - w + 1)
            block = mask[top : top + h, start : start + w]
            added = h * w - int(block.sum())
            if 0 < added <= room:
                block[:] = True
                yield added
                break
        else:
            return


def region(grid: Grid, goal: int, *, smallest: int, draws: Draws) -> np.ndarray:
    """The region that BEiT hides in one picture, (rows, columns): at most `goal` patches, often fewer."""
    mask = np.zeros(grid, dtype=bool)
    for _ in grow_region(mask, goal, smallest=smallest, draws=draws):
        pass
    return mask


def block_size(u: float, grid: Grid, scale: Sequence[float], ratio: Sequence[float]) -> Grid:
    """Rows and columns of I-JEPA's blocks: share of the grid and height / width both `u` of the way through a range.

    One u for both, as in the authors' code, so that large blocks are tall ones; a block is smaller than the grid on
    both sides.
    """
    area = int(math.prod(grid) * (scale[0] + u * (scale[1] - scale[0])))
    aspect = ratio[0] + u * (ratio[1] - ratio[0])
    return min(round(math.sqrt(area * aspect)), grid[0] - 1), min(round(math.sqrt(area / aspect)), grid[1] - 1)


def size_draws(step: int) -> tuple[float, float]:
    """`block_size`'s u of the targets and of the contexts of a batch: a function of its number, from 0, alone."""
    generator = torch.Generator().manual_seed(step)
    target, context = (torch.rand(1, generator=generator).item() for _ in range(2))
    return target, context


def check_blocks(grid: Grid, target: Grid, context: Grid, min_keep: int) -> None:
    """Raises `InputError` for blocks without more than `min_keep` patches: the authors' code searches them for ever."""
    smallest = min(math.prod(target), math.prod(context))
    if smallest <= max(min_keep, 0):
        raise InputError(
            f"min_keep {min_keep} on a grid of {grid[0]} x {grid[1]} patches: blocks may have {smallest} patches there "
            "and need more than min_keep; give less, larger blocks, or smaller patches"
        )


def place_blocks(
    pictures: int,
    grid: Grid,
    *,
    target: Grid,
    context: Grid,
    targets: int = 4,
    contexts: int = 1,
    min_keep: int = 10,
    overlap: bool = False,
    draws: Draws,
) -> tuple[Blocks, Blocks]:
    """I-JEPA's contexts and targets of every picture: blocks of these sizes placed at random.

    A context is its block without the patches of the picture's targets. It needs more than `min_keep` patches; after
    20 placements with fewer the last target may overlap it, after 20 more the last two, and so on. The last row and
    column of the grid are in no block, since the authors' code draws corners below (rows - h, columns - w).
    Code: facebookresearch/ijepa, src/masks/multiblock.py.

    Args:
        pictures: how many.
        grid: of the patches.
        target: size of a target.
        context: size of a context before targets are taken out of it.
        targets: how many of them a picture has.
        contexts: the same.
        min_keep: patches that a block has to have more of.
        overlap: whether contexts keep the patches of targets.
        draws: where corners come from.

    Raises:
        InputError: see `check_blocks`.
    """
    check_blocks(grid, target, context, min_keep)
    numbers = np.arange(math.prod(grid)).reshape(grid)

    def place(size: Grid) -> tuple[slice, slice]:
        top, left = draws.below(grid[0] - size[0]), draws.below(grid[1] - size[1])
        return slice(top, top + size[0]), slice(left, left + size[1])

    def find_context(taken: Sequence[tuple[slice, slice]]) -> np.ndarray:
        tries = 0
        while True:
            free = np.zeros(grid, dtype=bool)
            free[place(context)] = True
            for each in taken[: max(0, len(taken) - tries // PATIENCE)]:
                free[each] = False
            if np.count_nonzero(free) > min_keep:
                return numbers[free]
            tries += 1

    seen, asked = [], []
    for _ in range(pictures):
        places = [place(target) for _ in range(targets)]
        asked.append([numbers[each].ravel() for each in places])
        seen.append([find_context([] if overlap else places) for _ in range(contexts)])
    return seen, asked


def cut_to_shortest(blocks: Blocks) -> Int[Tensor, "n m k"]:
    """Blocks of one length: the first patches of each, as many as the shortest of the whole batch has."""
    length = min(len(block) for picture in blocks for block in picture)
    return torch.from_numpy(np.array([[block[:length] for block in picture] for picture in blocks]))


@dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's masks of a batch, as data.

    Attributes:
        contexts: blocks that are seen, of a picture.
        targets: blocks that are asked for, of a picture.
        context_scale: range of the share of the patches in a context, before targets are taken out of it.
        target_scale: range of the share of the patches in a target.
        target_ratio: range of a target's height / width.
        min_keep: patches that every block has more of; None for 10, on small grids as many as they allow.
    """

    contexts: int = 1
    targets: int = 4
    context_scale: Sequence[float] = (0.85, 1.0)
    target_scale: Sequence[float] = (0.15, 0.2)
    target_ratio: Sequence[float] = (0.75, 1.5)
    min_keep: int | None = None

    def sizes(self, grid: Grid, u_target: float, u_context: float) -> dict[str, Any]:
        """How large blocks are, each kind so far through its ranges, and what they have to exceed."""
        target = block_size(u_target, grid, self.target_scale, self.target_ratio)
        context = block_size(u_context, grid, self.context_scale, (1.0, 1.0))
        fitting = min(MIN_KEEP, math.prod(target) - 1, math.prod(context) - 1)
        min_keep = fitting if self.min_keep is None else self.min_keep
        check_blocks(grid, target, context, min_keep)
        return {"target": target, "context": context, "min_keep": min_keep}

    def check(self, grid: Grid) -> None:
        """Raises `InputError` where some batch of a run would have blocks that are too small."""
        for percent in range(101):
            self.sizes(grid, percent / 100, percent / 100)

    def draw(self, pictures: int, grid: Grid, step: int) -> tuple[Int[Tensor, "n c k"], Int[Tensor, "n t q"]]:
        """Contexts and targets of the pictures of a batch, which has a number; each kind cut to one length."""
        given = self.sizes(grid, *size_draws(step)) | {"contexts": self.contexts, "targets": self.targets}
        contexts, targets = place_blocks(pictures, grid, **given, draws=Draws())
        return cut_to_shortest(contexts), cut_to_shortest(targets)
