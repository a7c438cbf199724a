"""The scatter matrix S = Zc'Zc of a batch with centred columns Zc (n, d), in O(n d min(n, d)).

S and the Gram matrix G = ZcZc' have the same Frobenius norm, so where n < d no d x d matrix is needed:

    sum_{k != l} S_kl^2 = |G|^2 - sum_k S_kk^2,   with gradient 4 (G Zc - Zc diag(S)).

Where n >= d, S is the smaller one and its diagonal is set aside. Either way the gradient takes one product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import all_reduce_sum, gather_rows, own_rows, world_size
from fullrank.losses.inputs import at_least_float32


class Scatter(NamedTuple):
    """The scatter of n rows over all processes, b of them held here, in float32 or better.

    centred: (n, d) where n < d, else the (b, d) rows of this process.
    product: where n < d this process's rows of G, (b, n); else S with its diagonal set to zero, (d, d).
    diagonal: S_kk, (d,), the same on every process.
    off_diagonal: sum_{k != l} S_kl^2, the same on every process.
    """

    centred: Float[Tensor, "rows d"]
    product: Float[Tensor, "p q"]
    diagonal: Float[Tensor, " d"]
    off_diagonal: Float[Tensor, ""]


def scatter(z: Float[Tensor, "b d"]) -> Scatter:
    """The scatter of the global batch, of which `z` is this process's part."""
    if len(z) * world_size() < z.shape[1]:
        centred = centre_gathered(z)
        diagonal = centred.square().sum(0)
        gram = torch.mm(own_rows(centred), centred.T)
        off_diagonal = all_reduce_sum(squared_norm(gram)) - diagonal.square().sum()
        return Scatter(centred, gram, diagonal, off_diagonal.clamp_(min=0))
    centred = centre(z)
    matrix = all_reduce_sum(torch.mm(centred.T, centred))
    diagonal = take_diagonal(matrix)
    return Scatter(centred, matrix, diagonal, squared_norm(matrix))


def add_scatter_gradient(
    total: Float[Tensor, "b d"],
    centred: Float[Tensor, "rows d"],
    product: Float[Tensor, "p q"],
    columns: Float[Tensor, " d"],
    by_product: Float[Tensor, ""],
) -> None:
    """Add to `total`, in place, this process's rows of `by_product` * (`product` with Zc) + Zc diag(`columns`).

    It needs no centring: the columns of Zc sum to zero, so those of G Zc do too.
    """
    if product.shape[1] < centred.shape[1]:
        total.addcmul_(own_rows(centred), columns).addmm_(product * by_product, centred)
        return
    matrix = product * by_product
    diagonal_of(matrix).copy_(columns)
    total.addmm_(centred, matrix)


def centre(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """The rows of this process, in float32 or better, minus the mean of all processes' rows."""
    z = at_least_float32(z)
    return z - all_reduce_sum(z.sum(0)) / (len(z) * world_size())


def centre_gathered(z: Float[Tensor, "b d"]) -> Float[Tensor, "n d"]:
    """The rows of all processes, in float32 or better, minus their mean."""
    everyone = at_least_float32(gather_rows(z))
    return everyone - everyone.mean(0)


def diagonal_of(matrix: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """A view of the diagonal of a contiguous matrix; `Tensor.diagonal` warns when torch 2.15 compiles it."""
    return matrix.view(-1)[:: len(matrix) + 1]


def take_diagonal(matrix: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """A copy of the diagonal, which becomes zero in `matrix`."""
    diagonal = diagonal_of(matrix).clone()
    matrix.fill_diagonal_(0)
    return diagonal


def squared_norm(matrix: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
    """Sum of squares, by rows: one long float32 sum of 4096 x 4096 squares is off by 2e-3, this by 1e-7."""
    return torch.linalg.vector_norm(matrix, dim=1).square().sum()
