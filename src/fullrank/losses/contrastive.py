"""Contrastive losses: a sample's positive among negatives, by cross-entropy over cosine similarities.

The negatives are the other samples of the batch (SimCLR, DirectCLR, NNCLR) or a memory of earlier ones (MoCo, and with
memory banks PIRL and CMC). In data-parallel training every process compares its own rows with those of all processes,
which keep their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fullrank.distributed import gather_rows, rank
from fullrank.errors import InputError, unknown
from fullrank.losses.inputs import Terms, at_least_float32, first_derivative, on_embeddings

REDUCTIONS = ("code", "paper")


@on_embeddings
def nt_xent(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: float = 0.1,
    normalize: bool = True,
    reduction: str = "code",
) -> Terms:
    """(1/n) sum over both views of -log [ exp(s_ip / T) / sum_{j != i} exp(s_ij / T) ], s the cosine similarity.

    The 2n rows of both views are anchors; i's partner p is the same sample in the other view, and its 2n - 1 candidates
    are all rows but itself.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
    https://arxiv.org/abs/2002.05709; code: google-research/simclr, objective.py `add_contrastive_loss`.

    Args:
        z1: embeddings of view 1, the rows of this process.
        z2: embeddings of view 2; row i is the same sample as row i of `z1`.
        temperature: T.
        normalize: whether the rows are divided by their norms; else s is the inner product.
        reduction: "code", as above; "paper", the mean over the 2n anchors, half of it.

    Returns:
        `loss`, and `nt_xent`, the mean over the anchors.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    z = torch.cat([z1, z2])
    return _nt_xent(z, z, temperature, normalize, reduction)


@on_embeddings
def nt_xent_predicted(
    p1: Float[Tensor, "n d"],
    p2: Float[Tensor, "n d"],
    t1: Float[Tensor, "n d"],
    t2: Float[Tensor, "n d"],
    *,
    temperature: float = 0.1,
    normalize: bool = True,
    reduction: str = "code",
) -> Terms:
    """`nt_xent` where a predictor, a stop-gradient or a momentum encoder stands between the views.

    Anchors are the predictions, candidates the targets: the partner of p1_i is t2_i, and t1_i is left out.

    Args:
        p1: predictions of view 1.
        p2: predictions of view 2.
        t1: targets from view 1.
        t2: targets from view 2.
        temperature: T.
        normalize: whether the rows are divided by their norms.
        reduction: as in `nt_xent`.

    Returns:
        `loss`, and `nt_xent`, the mean over the anchors.

    Raises:
        InputError: not floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    return _nt_xent(torch.cat([p1, p2]), torch.cat([t1, t2]), temperature, normalize, reduction)


def _nt_xent(anchors: Tensor, candidates: Tensor, temperature: float, normalize: bool, reduction: str) -> Terms:
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    rows = _rows(anchors, normalize)
    others = rows if candidates is anchors else _rows(candidates, normalize)
    similarities, places = _similarities(rows, others, temperature)  # (2b, 2n), process by process, view by view
    similarities.scatter_(1, places[:, None], -torch.inf)
    mean = functional.cross_entropy(similarities, places.roll(len(places) // 2))
    return {"loss": 2 * mean if reduction == "code" else mean, "nt_xent": mean}


@on_embeddings
def info_nce(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "n d"],
    *,
    negatives: Tensor | None = None,
    temperature: float = 0.07,
    normalize: bool = True,
) -> Terms:
    """mean_i -log [ exp(q_i k_i / T) / (exp(q_i k_i / T) + sum_j exp(q_i n_j / T)) ], q and k of length 1.

    He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
    https://arxiv.org/abs/1911.05722; code: facebookresearch/moco, moco/builder.py and main_moco.py.

    Args:
        queries: q, the rows of this process.
        keys: k; row i is the positive of row i of `queries`.
        negatives: rows of a memory, taken as they are: the same (k, d) for all queries or (n, k, d), some for each.
            Where there are none, the keys of all other samples, of all processes.
        temperature: T.
        normalize: whether queries and keys are divided by their norms.

    Returns:
        `loss`, and `info_nce`, the same.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, negatives of another shape, or a loss
            that is not finite.
    """
    loss = functional.cross_entropy(*info_nce_logits(queries, keys, negatives, temperature, normalize))
    return {"loss": loss, "info_nce": loss}


def info_nce_logits(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "n d"],
    negatives: Tensor | None,
    temperature: float,
    normalize: bool = True,
) -> tuple[Float[Tensor, "n candidates"], Int[Tensor, " n"]]:
    """The similarities over T that `info_nce` compares, and the column of each row's positive: 0 with a memory."""
    queries, keys = _rows(queries, normalize), _rows(keys, normalize)
    if negatives is None:
        return _similarities(queries, keys, temperature)
    n, d = queries.shape
    if tuple(negatives.shape) not in ((len(negatives), d), (n, *negatives.shape[1:2], d)):
        raise InputError(f"negatives have shape {tuple(negatives.shape)}, expected (k, {d}) or ({n}, k, {d})")
    negatives, scaled = at_least_float32(negatives), queries / temperature
    positive = (scaled * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, _InnerProducts.apply(scaled, negatives)], 1)
    return logits, torch.zeros(n, dtype=torch.long, device=queries.device)


@on_embeddings
def directclr(s1: Float[Tensor, "n d"], s2: Float[Tensor, "n d"], *, temperature: float = 0.1) -> Terms:
    """1/2 [CE(S) + CE(S')], S_ij = u(s1_i) u(s2_j) / T, u(v) = v / |v|, CE the cross-entropy of rows with the diagonal.

    The candidates of an anchor are the n rows of the other view only.

    Jing, Vincent, LeCun, Tian, "Understanding Dimensional Collapse in Contrastive Self-supervised Learning", ICLR 2022,
    https://arxiv.org/abs/2110.09348; code: facebookresearch/directclr, directclr/main.py `infoNCE`.

    Args:
        s1: the first entries of the representations of view 1, sliced before they are normalised here.
        s2: the same of view 2.
        temperature: T.

    Returns:
        `loss`, and the two cross-entropies `info_nce_12` (anchors in view 1) and `info_nce_21`.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    return _both_directions((s1, s2), (s2, s1), temperature)


@on_embeddings
def nnclr(
    n1: Float[Tensor, "n d"],
    n2: Float[Tensor, "n d"],
    p1: Float[Tensor, "n d"],
    p2: Float[Tensor, "n d"],
    *,
    temperature: float = 0.1,
) -> Terms:
    """1/2 [CE(n1 u(p2)' / T) + CE(n2 u(p1)' / T)]: a neighbour of one view among the predictions of the other.

    The softmax runs over the predictions, for a fixed neighbour.

    Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
    Representations", ICCV 2021, https://arxiv.org/abs/2104.14548; the authors released no code, this is the form of
    their pseudo-code and of vturrisi/solo-learn, solo/losses/nnclr.py.

    Args:
        n1: the rows of a memory that are nearest to view 1's embeddings.
        n2: the same for view 2.
        p1: predictions of view 1.
        p2: predictions of view 2.
        temperature: T.

    Returns:
        `loss`, and the two cross-entropies `info_nce_12` (neighbours of view 1) and `info_nce_21`.

    Raises:
        InputError: not floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    return _both_directions((n1, p2), (n2, p1), temperature)


def _both_directions(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], temperature: float) -> Terms:
    one, other = (
        functional.cross_entropy(*info_nce_logits(queries, keys, None, temperature))
        for queries, keys in (first, second)
    )
    return {"loss": (one + other) / 2, "info_nce_12": one, "info_nce_21": other}


def _similarities(
    queries: Float[Tensor, "b d"], keys: Float[Tensor, "b d"], temperature: float
) -> tuple[Float[Tensor, "b n"], Int[Tensor, " b"]]:
    """Inner products over T with the keys of all processes, and the columns of this process's own keys."""
    places = torch.arange(len(keys), device=keys.device) + rank() * len(keys)
    return _InnerProducts.apply(queries / temperature, gather_rows(keys)), places


class _InnerProducts(torch.autograd.Function):
    """Rows (n, d) with rows (k, d), or with (n, k, d) of their own -> (n, k); in full precision backward too."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, others: Tensor) -> Tensor:
        ctx.save_for_backward(rows, others)
        return rows @ others.T if others.ndim == 2 else torch.bmm(others, rows[..., None])[..., 0]

    @staticmethod
    @first_derivative
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, others = ctx.saved_tensors
        by_rows = by_others = None
        if ctx.needs_input_grad[0]:
            by_rows = gradient @ others if others.ndim == 2 else torch.bmm(gradient[:, None], others)[:, 0]
        if ctx.needs_input_grad[1]:
            by_others = gradient.T @ rows if others.ndim == 2 else gradient[..., None] * rows[:, None]
        return by_rows, by_others


def _rows(rows: Float[Tensor, "n d"], normalize: bool) -> Float[Tensor, "n d"]:
    rows = at_least_float32(rows)
    return functional.normalize(rows, dim=1) if normalize else rows
