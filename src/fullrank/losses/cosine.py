"""Cosine distances between predictions of one view and targets of the other: BYOL and SimSiam.

Both have trivial minima; what keeps them from collapse is the network around them. Whether the targets carry gradients
is up to the caller.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.losses.inputs import Terms, at_least_float32, on_embeddings


@on_embeddings
def byol(
    p1: Float[Tensor, "n d"], p2: Float[Tensor, "n d"], t1: Float[Tensor, "n d"], t2: Float[Tensor, "n d"]
) -> Terms:
    """mean_i |u(p1_i) - u(t2_i)|^2 + |u(p2_i) - u(t1_i)|^2, u(v) = v / |v|: the two directions are added, in 0 .. 8.

    Grill et al., "Bootstrap your own latent", NeurIPS 2020, https://arxiv.org/abs/2006.07733; code: deepmind-research,
    byol/utils/helpers.py `regression_loss`. |v|^2 is taken to be at least 1e-12, as there.

    Args:
        p1: predictions of view 1.
        p2: predictions of view 2.
        t1: targets from view 1.
        t2: targets from view 2.

    Returns:
        `loss`, and `regression`, the same.

    Raises:
        InputError: not floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    p1, p2, t1, t2 = (_unit(rows) for rows in (p1, p2, t1, t2))
    loss = ((p1 - t2).square() + (p2 - t1).square()).sum(1).mean()
    return {"loss": loss, "regression": loss}


@on_embeddings
def simsiam(
    p1: Float[Tensor, "n d"], p2: Float[Tensor, "n d"], t1: Float[Tensor, "n d"], t2: Float[Tensor, "n d"]
) -> Terms:
    """-1/2 [mean_i cos(p1_i, t2_i) + mean_i cos(p2_i, t1_i)], in -1 .. 1.

    Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021, https://arxiv.org/abs/2011.10566; code:
    facebookresearch/simsiam, main_simsiam.py. Norms are taken to be at least 1e-8, as there.

    Args:
        p1: predictions of view 1.
        p2: predictions of view 2.
        t1: targets from view 1.
        t2: targets from view 2.

    Returns:
        `loss`, and `similarity`, its negative.

    Raises:
        InputError: not floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    p1, p2, t1, t2 = (at_least_float32(rows) for rows in (p1, p2, t1, t2))
    similarity = (torch.cosine_similarity(p1, t2).mean() + torch.cosine_similarity(p2, t1).mean()) / 2
    return {"loss": -similarity, "similarity": similarity}


def _unit(rows: Tensor) -> Tensor:
    rows = at_least_float32(rows)
    return rows * rows.square().sum(1, keepdim=True).clamp_min(1e-12).rsqrt()
