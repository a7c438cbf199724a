"""MSN: masked views are assigned to the same prototypes as the whole view, and all prototypes are used.

Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022, https://arxiv.org/abs/2204.07141;
code: facebookresearch/msn, src/losses.py.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from fullrank.distributed import all_reduce_sum, world_size
from fullrank.losses.inputs import Terms, at_least_float32, full_precision, on_embeddings
from fullrank.losses.sinkhorn import sinkhorn


@on_embeddings
def msn(
    anchors: Float[Tensor, "r d"],
    *,
    targets: Float[Tensor, "n k"],
    prototypes: Float[Tensor, "k d"],
    temperature: float = 0.1,
    me_max: float = 1.0,
    entropy: float = 0.0,
    smoothing: float = 0.0,
) -> Terms:
    """mean_i -sum_k t_ik log p_ik + me_max * [log k - H(mean_i p_i)] + entropy * mean_i H(p_i).

        p = softmax(cos(anchor, prototype) / temperature), H the entropy

    The mean of p is that of the anchors of all processes, the others are of this process.

    Args:
        anchors: embeddings of the masked views; the n samples of view 1, then of view 2, ...
        targets: what `msn_targets` gives for the n samples.
        prototypes: trained with the network; of any length.
        temperature: of the anchors' assignments.
        me_max: weight of the mean-entropy regulariser, which is 0 where all prototypes are used equally.
        entropy: weight of the mean entropy of the assignments.
        smoothing: share of every assignment that is spread over all prototypes (label smoothing).

    Returns:
        `loss`, and unweighted `cross_entropy`, `me_max`, `entropy`.

    Raises:
        InputError: anchors that are not floating point (r, d) with r >= 2, or a loss that is not finite.
    """
    logs = _log_assignments(anchors, prototypes, temperature, smoothing)
    p = logs.exp()
    cross_entropy = -(targets * logs.unflatten(0, (-1, len(targets)))).sum(-1).mean()
    mean = (all_reduce_sum(p.mean(0)) / world_size()).clamp_min(torch.finfo(p.dtype).tiny)
    unused = math.log(len(prototypes)) - torch.special.entr(mean).sum()
    each = -(p * logs).sum(1).mean()
    loss = cross_entropy + me_max * unused + entropy * each
    return {"loss": loss, "cross_entropy": cross_entropy, "me_max": unused, "entropy": each}


@torch.no_grad()
def msn_targets(
    embeddings: Float[Tensor, "n d"],
    prototypes: Float[Tensor, "k d"],
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    balanced: bool = True,
    smoothing: float = 0.0,
) -> Float[Tensor, "n k"]:
    """t = p^(1 / sharpening) / sum, p the assignments of the target view; `sinkhorn` of that where `balanced`.

    Args:
        embeddings: of the target view, from the target encoder.
        prototypes: of any length.
        temperature: of the assignments.
        sharpening: the lower, the harder the targets.
        balanced: whether Sinkhorn-Knopp evens the use of the prototypes out over the samples of all processes. The
            paper has it as an option; the released configurations switch it on.
        smoothing: as in `msn`.

    Returns:
        One distribution over the prototypes a sample, without gradient.
    """
    with full_precision(embeddings):
        logs = _log_assignments(embeddings, prototypes, temperature, smoothing)
        sharpened = (logs / sharpening).log_softmax(1)
        return sinkhorn(sharpened) if balanced else sharpened.exp()


def _log_assignments(rows: Tensor, prototypes: Tensor, temperature: float, smoothing: float) -> Float[Tensor, "n k"]:
    cosines = normalize(at_least_float32(rows)) @ normalize(at_least_float32(prototypes)).T
    logs = (cosines / temperature).log_softmax(1)
    if smoothing:
        return ((1 - smoothing) * logs.exp() + smoothing / len(prototypes)).log()
    return logs
