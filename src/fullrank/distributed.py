"""Sums and gathers over processes that autograd sees; the identity where there is one process.

Data-parallel training averages gradients over P processes, so what is minimised is the mean of the processes'
losses. The backward passes here sum over processes, which makes that averaged gradient exact: a statistic of
the global batch, used in every process's loss, gets the gradient of one process that holds all the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as torch_distributed
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether more than one process takes part in the run."""
    return world_size() > 1


def world_size() -> int:
    """How many processes take part in the run: 1 where `torch.distributed` is not initialised."""
    if torch_distributed.is_available() and torch_distributed.is_initialized():
        return torch_distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return torch_distributed.get_rank() if is_distributed() else 0


def gather_rows(rows: Float[Tensor, "b ..."]) -> Float[Tensor, "n ..."]:
    """The rows of all processes in rank order, (P b, ...) from (b, ...): every process passes the same b.

    Backward: a process receives the sum, over processes, of the gradients of its own rows.
    """
    return _GatherRows.apply(rows) if is_distributed() else rows


def gather_objects(value: T) -> list[T]:
    """What every process has, in rank order, of any kind and size; it is pickled, so for small things."""
    gathered: list[Any] = [value] * world_size()
    if is_distributed():
        torch_distributed.all_gather_object(gathered, value)
    return gathered


def share_buffers(module: torch.nn.Module) -> None:
    """Give every process the buffers of the first, such as running statistics, which each gathers by itself."""
    if is_distributed():
        for buffer in module.buffers():
            torch_distributed.broadcast(buffer, 0)


def own_rows(gathered: Float[Tensor, "n ..."]) -> Float[Tensor, "b ..."]:
    """The rows of this process (a view) among those of `gather_rows`."""
    if not is_distributed():
        return gathered
    count = gathered.shape[0] // world_size()
    return gathered.narrow(0, rank() * count, count)


def draw_rows(rows: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Random values for `rows` rows of this process, those that one process with all rows would draw for them.

    `draw` gives values for that many rows; every process must have seeded torch's generator alike.
    """
    return own_rows(draw(rows * world_size()))


def draw_seeds(rows: int) -> list[int]:
    """A seed for every row of this process: for draws of unknown number, which each row then makes by itself."""
    return draw_rows(rows, lambda n: torch.randint(2**62, (n,))).tolist()


def all_reduce_sum(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of `value` over processes, the same on each. Backward: the sum of the gradients over processes."""
    return _AllReduceSum.apply(value) if is_distributed() else value


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
        _collective("all_gather_single", "all_gather_into_tensor")(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        own = gradient.new_empty((gradient.shape[0] // world_size(), *gradient.shape[1:]))
        _collective("reduce_scatter_single", "reduce_scatter_tensor")(own, gradient.contiguous())
        return own


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch_distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return all_reduce_sum(gradient)


def _collective(name: str, before: str) -> Callable[[Tensor, Tensor], object]:
    """A collective (output, input) of torch by its name, or by the one that it had before torch 2.14."""
    return getattr(torch_distributed, name, None) or getattr(torch_distributed, before)
