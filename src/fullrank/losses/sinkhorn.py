"""Sinkhorn-Knopp: shares samples out among prototypes so that none is left out and none takes all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import all_reduce_sum
from fullrank.losses.inputs import at_least_float32


@torch.no_grad()
def sinkhorn(mass: Float[Tensor, "n k"], *, iterations: int = 3) -> Float[Tensor, "n k"]:
    """Rows of mass rescaled so that every prototype gets about the same in all, and every row sums to 1.

        q_ik <- q_ik / sum_i q_ik, then q_ik <- q_ik / sum_k q_ik, `iterations` times

    Prototypes first, samples last: rows sum to 1 exactly, the prototypes' totals are equal only nearly. The first sum
    is over the rows of all processes. Code: `distributed_sinkhorn` of facebookresearch/swav and facebookresearch/msn,
    whose constants cancel. Cuturi, "Sinkhorn Distances", NeurIPS 2013, https://arxiv.org/abs/1306.0895.

    Args:
        mass: not negative; exp(scores / epsilon) in SwAV, probabilities in MSN. Processes may hold different numbers
            of rows.
        iterations: of both steps.

    Returns:
        The codes, without gradient. A prototype without any mass gets none.
    """
    q = at_least_float32(mass)
    least = torch.finfo(q.dtype).tiny
    for _ in range(iterations):
        q = q / all_reduce_sum(q.sum(0)).clamp_min(least)
        q = q / q.sum(1, keepdim=True).clamp_min(least)
    return q
