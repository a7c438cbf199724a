"""Barlow Twins: the cross-correlation of two views, pulled to the identity.

Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
https://arxiv.org/abs/2103.03230; code: facebookresearch/barlowtwins, main.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import all_reduce_sum, gather_rows, is_distributed, own_rows, world_size
from fullrank.errors import unknown
from fullrank.losses.inputs import Terms, at_least_float32, first_derivative, on_embeddings
from fullrank.losses.scatter import centre, diagonal_of, take_diagonal

REDUCTIONS = ("code", "paper")


@on_embeddings
def barlow_twins(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    redundancy: float = 0.0051,
    eps: float = 1e-5,
    scale: float = 1.0,
    reduction: str = "code",
) -> Terms:
    """scale * [ sum_k (C_kk - 1)^2 + redundancy * sum_{k != l} C_kl^2 ], C = N(x)'N(y) / n.

    N(z) = (z - mean) / sqrt(Var + eps) by columns, each view with its own statistics, Var divided by n. The sums
    are not divided by d. n is the number of rows present, over all processes; the authors' code divides by the
    configured batch size, which differs in a last short batch, and shrinks the averaged gradient by the number
    of processes, which this does not.

    Where n < d no d x d matrix is made: |N(x)'N(y)|^2 = <N(x)N(x)', N(y)N(y)'>. Costs O(n d min(n, d)), in float32
    or better whatever the precision of the inputs or of autocast.

    Args:
        x: embeddings of view 1, the rows of this process; rows of C.
        y: embeddings of view 2; row i is the same sample as row i of `x`.
        redundancy: weight lambda of the off-diagonal sum; 0.0051 in the code, 0.005 in the paper.
        eps: added to the variance inside the root.
        scale: multiplies every term. The first release of the code had 1/32 here, the README's best run 0.024.
        reduction: "code", or "paper" for the paper's algorithm 1: Var divided by n - 1 and no eps, so that a
            constant column has no value.

    Returns:
        `loss`, `invariance` (the diagonal sum) and `redundancy` (the off-diagonal sum), all times `scale`.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    n = len(x) * world_size()
    through = _ThroughGram if n < x.shape[1] else _ThroughCorrelation
    added, degrees = (0.0, n - 1) if reduction == "paper" else (eps, n)
    on_diagonal, off_diagonal = through.apply(x, y, added, degrees)
    if scale != 1:
        on_diagonal, off_diagonal = scale * on_diagonal, scale * off_diagonal
    return {
        "loss": on_diagonal + redundancy * off_diagonal,
        "invariance": on_diagonal,
        "redundancy": off_diagonal,
    }


class _ThroughGram(torch.autograd.Function):
    """Two views, n < d -> sum_k (C_kk - 1)^2 and sum_{k != l} C_kl^2; every process holds all rows, (n, d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, eps: float, degrees: int) -> tuple[Tensor, Tensor]:
        (a, scale_a), (b, scale_b) = (_standardise(gather_rows(view), eps, degrees) for view in (x, y))
        n = len(a)
        diagonal = (a * b).sum(0).div_(n)
        gram_a, gram_b = (torch.mm(own_rows(rows), rows.T) for rows in (a, b))  # (b, n), this process's rows
        total = all_reduce_sum((gram_a * gram_b).sum()) / n**2
        ctx.save_for_backward(a, b, scale_a, scale_b, gram_a, gram_b, diagonal)
        ctx.degrees, ctx.dtypes = degrees, (x.dtype, y.dtype)
        return (diagonal - 1).square().sum(), (total - diagonal.square().sum()).clamp_(min=0)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, by_on_diagonal: Tensor, by_off_diagonal: Tensor) -> tuple[Any, ...]:
        a, b, scale_a, scale_b, gram_a, gram_b, diagonal = ctx.saved_tensors
        n = len(a)
        share = _share(n)
        by_product = by_off_diagonal * (share / n)
        by_diagonal = (diagonal * (by_on_diagonal - by_off_diagonal) - by_on_diagonal).mul_(share)
        by_x = _gradient_through_gram(a, scale_a, b, gram_b, by_diagonal, by_product, ctx.degrees)
        by_y = _gradient_through_gram(b, scale_b, a, gram_a, by_diagonal, by_product, ctx.degrees)
        return by_x.to(ctx.dtypes[0]), by_y.to(ctx.dtypes[1]), None, None


class _ThroughCorrelation(torch.autograd.Function):
    """The same for n >= d; every process holds its own rows, (b, d), and all of C."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, eps: float, degrees: int) -> tuple[Tensor, Tensor]:
        n = len(x) * world_size()
        (a, scale_a), (b, scale_b) = (_standardise_own(view, eps, degrees) for view in (x, y))
        correlation = all_reduce_sum(torch.mm(a.T, b)).div_(n)  # (d, d)
        diagonal = take_diagonal(correlation)
        squares = correlation.square()
        along_a, along_b = squares.sum(1), squares.sum(0)  # (d,), off the diagonal
        ctx.save_for_backward(a, b, scale_a, scale_b, along_a, along_b, correlation, diagonal)
        ctx.n, ctx.degrees, ctx.dtypes = n, degrees, (x.dtype, y.dtype)
        return (diagonal - 1).square().sum(), along_a.sum()

    @staticmethod
    @first_derivative
    def backward(ctx: Any, by_on_diagonal: Tensor, by_off_diagonal: Tensor) -> tuple[Any, ...]:
        a, b, scale_a, scale_b, along_a, along_b, correlation, diagonal = ctx.saved_tensors
        share = _share(ctx.n)
        by_product = by_off_diagonal * share
        by_diagonal = (diagonal - 1) * (by_on_diagonal * share)
        matrix = correlation * by_product  # the gradient in C over n
        diagonal_of(matrix).copy_(by_diagonal)
        common, factor = by_diagonal * diagonal, ctx.n / ctx.degrees
        along_a, along_b = ((along * by_product + common) * factor for along in (along_a, along_b))
        by_x = _before_standardising(torch.mm(b, matrix.T), a, along_a, scale_a)
        by_y = _before_standardising(torch.mm(a, matrix), b, along_b, scale_b)
        return by_x.to(ctx.dtypes[0]), by_y.to(ctx.dtypes[1]), None, None


def _share(n: int) -> float:
    """2 / n of C_kl and of the square, times the processes: averaging their gradients will divide by them."""
    return 2 * world_size() / n


def _standardise(rows: Float[Tensor, "n d"], eps: float, degrees: int) -> tuple[Tensor, Tensor]:
    """The rows of all processes by columns, and the factors (d,) that made their variance 1."""
    n = len(rows)
    # torch divides the variance by n: eps and the scale make up for other degrees of freedom.
    rows, _, scale = torch.native_batch_norm(
        at_least_float32(rows), None, None, None, None, True, 0.0, eps * degrees / n
    )
    if degrees != n:
        rows, scale = rows * (degrees / n) ** 0.5, scale * (degrees / n) ** 0.5
    if eps == 0:  # torch gives a constant column the scale 0; here it has none
        constant = scale == 0
        rows, scale = rows.masked_fill(constant, torch.nan), scale.masked_fill(constant, torch.nan)
    return rows, scale


def _standardise_own(z: Float[Tensor, "b d"], eps: float, degrees: int) -> tuple[Tensor, Tensor]:
    """The same for the rows (b, d) of this process, with the statistics of all."""
    if not is_distributed():
        return _standardise(z, eps, degrees)
    centred = centre(z)
    scale = all_reduce_sum(centred.square().sum(0)).div_(degrees).add_(eps).rsqrt_()
    return centred.mul_(scale), scale


def _gradient_through_gram(
    rows: Float[Tensor, "n d"],
    scale: Float[Tensor, " d"],
    other: Float[Tensor, "n d"],
    other_gram: Float[Tensor, "b n"],
    by_diagonal: Float[Tensor, " d"],
    by_product: Float[Tensor, ""],
    degrees: int,
) -> Float[Tensor, "b d"]:
    own = own_rows(rows)
    by_rows = torch.mm(other_gram * by_product, rows).addcmul_(own_rows(other), by_diagonal)
    along = all_reduce_sum((own * by_rows).sum(0)).div_(degrees)
    return _before_standardising(by_rows, own, along, scale)


def _before_standardising(
    by_rows: Float[Tensor, "b d"], rows: Float[Tensor, "b d"], along: Float[Tensor, " d"], scale: Float[Tensor, " d"]
) -> Float[Tensor, "b d"]:
    """The gradient in z from that in N(z); `along` is its inner product with the rows over the degrees of freedom.

    The mean of `by_rows` need not be subtracted: its columns sum to zero, as those of both views' rows do.
    """
    return by_rows.addcmul_(rows, along, value=-1).mul_(scale)
