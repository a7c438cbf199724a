"""Sinkhorn-Knopp: shares samples out among prototypes so that none is left out and none takes all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import gather_rows
from fullrank.losses.inputs import at_least_float32


@torch.no_grad()
def sinkhorn(logs: Float[Tensor, "n k"], *, iterations: int = 3) -> Float[Tensor, "n k"]:
    """exp(logs), rescaled so that every prototype gets about the same in all, and every row sums to 1.

        q_ik <- q_ik / sum_i q_ik, then q_ik <- q_ik / sum_k q_ik, `iterations` times

    Prototypes first, samples last: rows sum to 1 exactly, the prototypes' totals are equal only nearly. The first sum
    is over the rows of all processes. Everything stays in logarithms until the end, so nothing overflows or vanishes.
    Code: `distributed_sinkhorn` of facebookresearch/swav and facebookresearch/msn, whose constants cancel. Cuturi,
    "Sinkhorn Distances", NeurIPS 2013, https://arxiv.org/abs/1306.0895.

    Args:
        logs: scores over epsilon in SwAV, logarithms of probabilities in MSN; finite. Processes may hold different
            numbers of rows.
        iterations: of both steps.

    Returns:
        The codes, one distribution over the prototypes a row, without gradient.
    """
    logs = at_least_float32(logs)
    for _ in range(iterations):
        totals = gather_rows(logs.logsumexp(0, keepdim=True)).logsumexp(0)
        logs = (logs - totals).log_softmax(1)
    return logs.exp()
