"""Which samples make up every batch of a run: a function of seed and batch number alone.

Nothing about the order is kept in memory, so a run that is killed and resumed sees exactly the batches that it
would have seen, and P processes see together what one process sees alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

# (position of the sample in the set, number of the draw in the run); the second seeds random crops in workers.
Draw = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """The length of a run, in samples and batches of all processes together."""

    samples: int
    batch_size: int  # rows of one forward pass over all processes
    batches: int  # forward passes in the whole run
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the set; the incomplete last one is left out."""
        return self.samples // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The order of the samples in one epoch, shape (samples,)."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        return torch.randperm(self.samples, generator=generator)


class Batches(Sampler[list[Draw]]):
    """The batches of one process, from number `start` to the end of the run."""

    def __init__(self, plan: Plan, *, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.plan = plan
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.rows = plan.batch_size // world_size

    def __len__(self) -> int:
        return self.plan.batches

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for number in range(self.start, self.plan.batches):
            if number // self.plan.batches_per_epoch != epoch:
                epoch = number // self.plan.batches_per_epoch
                order = self.plan.order(epoch)
            first = self.rank * self.rows
            begin = number % self.plan.batches_per_epoch * self.plan.batch_size + first
            draws = number * self.plan.batch_size + first
            rows = order[begin : begin + self.rows].tolist()
            yield [(row, draws + position) for position, row in enumerate(rows)]


class ResumableLoader(DataLoader):
    """A loader whose place in the run is given by its batch sampler; there is no other state to keep."""

    def state_dict(self) -> dict[str, int]:
        """Nothing: the trainer's step says where the run is."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing: `Batches.start` has been set before the loader was made."""


def mix(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers, so that neighbouring seeds and steps share nothing."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
