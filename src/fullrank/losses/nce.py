"""Noise-contrastive estimation against a memory bank: PIRL and CMC, after instance discrimination.

A sample's own row of the bank is to be told from rows drawn at random, each by itself, with one constant in place of
the softmax's sum. The softmax over the same rows is `info_nce` with them as its negatives.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fullrank.distributed import gather_rows
from fullrank.errors import InputError
from fullrank.losses.inputs import Terms, at_least_float32, full_precision, on_embeddings

EPS = float(torch.finfo(torch.float32).eps)


@on_embeddings
def nce(
    z: Float[Tensor, "n d"],
    *,
    rows: Tensor,
    log_partition: Tensor,
    samples: int,
    temperature: float = 0.07,
    eps: float = EPS,
) -> Terms:
    """-(1/n) sum_i [ log p_i0 / (p_i0 + c + eps) + sum_{j >= 1} log c / (p_ij + c + eps) ], c = k / N.

    p_ij = exp(z_i b_ij / T) / Z, where b_i0 is the sample's own row of the bank and b_i1 .. b_ik are k others.

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    https://arxiv.org/abs/1805.01978; code: facebookresearch/vissl, losses/nce_loss.py `NCELossWithMemory`, and
    HobbitLong/CMC, NCE/NCECriterion.py, where eps is 1e-7. Computed from the logarithms of p, which do not overflow.

    Args:
        z: embeddings, usually of length 1, the rows of this process.
        rows: b, (n, 1 + k, d), which get no gradient.
        log_partition: log Z, a constant: `nce_log_partition` of the first batch of a run, by the authors' codes.
        samples: N, the rows of the bank.
        temperature: T.
        eps: added in the denominators only.

    Returns:
        `loss`, and `nce`, the same.

    Raises:
        InputError: not a floating point (n, d) with n >= 2, rows of another shape, or a loss that is not finite.
    """
    logits = nce_logits(z, rows, temperature)
    noise = (rows.shape[1] - 1) / samples
    log_noise, log_above = math.log(noise), math.log(noise + eps)
    log_odds = logits - log_partition - log_above
    own, others = logsigmoid(log_odds[:, 0]), logsigmoid(-log_odds[:, 1:]) + (log_noise - log_above)
    loss = -(own + others.sum(1)).mean()
    return {"loss": loss, "nce": loss}


def nce_logits(z: Float[Tensor, "n d"], rows: Tensor, temperature: float) -> Float[Tensor, "n candidates"]:
    """z_i b_ij / T, in float32 or better. Raises `InputError` for rows that are not (n, 1 + k, d)."""
    n, d = z.shape
    if rows.ndim != 3 or rows.shape[::2] != (n, d) or rows.shape[1] < 2:
        raise InputError(f"rows of the bank have shape {tuple(rows.shape)}, expected ({n}, 1 + k, {d}) with k >= 1")
    with full_precision(z):
        return torch.bmm(at_least_float32(rows.detach()), at_least_float32(z)[..., None])[..., 0] / temperature


@torch.no_grad()
def nce_log_partition(z: Float[Tensor, "n d"], rows: Tensor, samples: int, temperature: float) -> Float[Tensor, ""]:
    """log Z, with Z = N times the mean of exp(z_i b_ij / T) over the batch of all processes; all rows are drawn alike.

    Raises:
        InputError: rows that are not (n, 1 + k, d).
    """
    logits = nce_logits(z, rows, temperature)
    everyone = gather_rows(logits.logsumexp((0, 1))[None])
    return everyone.logsumexp(0) - math.log(len(everyone) * logits.numel()) + math.log(samples)
