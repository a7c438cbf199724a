"""Memories of embeddings from earlier steps: a queue of the newest, and a bank with a row for every sample.

Buffers of the module, so a checkpoint holds them. Writes gather the rows of all processes in rank order, so every
process keeps the same memory, which is that of one process with the joint batch.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank import distributed
from fullrank.errors import InputError


def unit(rows: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """Rows over their norms, which are taken to be at least 1e-12, in float32 or better."""
    return nn.functional.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


class Queue(nn.Module):
    """The newest `length` rows, first in first out; at the start random unit rows, or zeros.

    A batch may cross the end, and need not divide the length. Raises `InputError` for a length below 1.
    """

    rows: Tensor
    pointer: Tensor
    written: Tensor

    def __init__(self, length: int, width: int, *, zeros: bool = False) -> None:
        super().__init__()
        if length < 1:
            raise InputError(f"a queue of {length} embeddings: give it 1 or more")
        self.register_buffer("rows", torch.zeros(length, width) if zeros else unit(torch.randn(length, width)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))  # where the next row is written
        self.register_buffer("written", torch.zeros((), dtype=torch.long))  # rows written so far, at most `length`

    @property
    def is_full(self) -> bool:
        """Whether every row of the start has been replaced."""
        return int(self.written) == len(self.rows)

    @property
    def share(self) -> Float[Tensor, "r d"]:
        """The part of the rows that this process adds to a sum over processes, so that each counts once."""
        return self.rows.tensor_split(distributed.world_size())[distributed.rank()]

    @torch.no_grad()
    def nearest(self, rows: Float[Tensor, "b d"]) -> Int[Tensor, " b"]:
        """The place in the queue, whose rows have length 1, that is most similar to each row."""
        with torch.autocast(rows.device.type, enabled=False):
            return (unit(rows) @ self.rows.T).argmax(1)

    @torch.no_grad()
    def push(self, rows: Float[Tensor, "b d"]) -> None:
        """Write the rows of all processes over the oldest ones; only the last `length` of them where there are more."""
        everyone = distributed.gather_rows(rows.detach())
        newest = everyone[-len(self.rows) :]
        first = self.pointer + len(everyone) - len(newest)
        places = (first + torch.arange(len(newest), device=rows.device)) % len(self.rows)
        self.rows[places] = newest.to(self.rows.dtype)
        self.pointer.add_(len(everyone)).remainder_(len(self.rows))
        self.written.add_(len(everyone)).clamp_(max=len(self.rows))


class Bank(nn.Module):
    """One row for every sample of the set: a moving average of its embeddings, of length 1.

    The rows start uniform in a cube, which gives them length 1 on average, and are then scaled to it unless
    `scaled_start` is false, as in CMC.
    """

    rows: Tensor

    def __init__(self, samples: int, width: int, *, scaled_start: bool = True) -> None:
        super().__init__()
        rows = (2 * torch.rand(samples, width) - 1) * math.sqrt(3 / width)
        self.register_buffer("rows", unit(rows) if scaled_start else rows)

    def draw(self, index: Int[Tensor, " b"], negatives: int) -> Int[Tensor, "b k"]:
        """Row numbers for each sample: its own, then `negatives` of all rows, with replacement.

        The draws are made on the CPU for all processes alike: each takes those of its own samples.
        """
        n = len(index) * distributed.world_size()
        drawn = torch.randint(len(self.rows), (n, negatives))
        return torch.cat([index[:, None], distributed.own_rows(drawn).to(index.device)], 1)

    @torch.no_grad()
    def update(self, index: Int[Tensor, " b"], rows: Float[Tensor, "b d"], momentum: float) -> None:
        """row <- unit(momentum * row + (1 - momentum) * new), for the samples of all processes."""
        index, rows = distributed.gather_rows(index), distributed.gather_rows(rows.detach())
        self.rows[index] = unit(torch.lerp(rows.to(self.rows.dtype), self.rows[index], momentum))
