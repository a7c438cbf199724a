"""Swapped prediction: the target of one view is predicted from every other view, as in SwAV and DINO.

Both minimise cross-entropies between distributions over prototypes. They differ in the targets: codes that
Sinkhorn-Knopp balances, or a teacher's centred and sharpened probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import all_reduce_sum, world_size
from fullrank.losses.inputs import Terms, at_least_float32, on_embeddings
from fullrank.losses.sinkhorn import sinkhorn


@on_embeddings
def swav(
    scores: Float[Tensor, "r k"],
    *,
    codes: Float[Tensor, "a n k"],
    assigned: Sequence[int] = (0, 1),
    temperature: float = 0.1,
) -> Terms:
    """mean_a 1/(V - 1) sum_{v != a} mean_i -sum_k q_aik log softmax_k(s_vi / temperature), over the views a with codes.

    Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020,
    https://arxiv.org/abs/2006.09882; code: facebookresearch/swav, main_swav.py. The loss is that of the rows of this
    process.

    Args:
        scores: products of embeddings and prototypes, both of length 1; the n samples of view 1, then of view 2, ...
        codes: what `swav_codes` gives for each of the views `assigned`.
        assigned: which views they belong to, from 0.
        temperature: of the softmax.

    Returns:
        `loss`, and its two parts: `entropy` of the codes, and `divergence` (Kullback-Leibler) of the predictions.

    Raises:
        InputError: scores that are not floating point (r, k) with r >= 2, or a loss that is not finite.
    """
    views = at_least_float32(scores).unflatten(0, (-1, codes.shape[1]))
    return _swapped((views / temperature).log_softmax(-1), codes, assigned)


@torch.no_grad()
def swav_codes(scores: Float[Tensor, "n k"], *, epsilon: float = 0.05, iterations: int = 3) -> Float[Tensor, "n k"]:
    """SwAV's codes of one view: `sinkhorn` of exp(scores / epsilon), over the rows of all processes.

    Args:
        scores: products of embeddings and prototypes; processes may hold different numbers of rows.
        epsilon: the smaller, the harder the codes.
        iterations: of the balancing.

    Returns:
        One distribution over the prototypes a row, without gradient.
    """
    return sinkhorn(at_least_float32(scores) / epsilon, iterations=iterations)


@on_embeddings
def dino(
    student: Float[Tensor, "r k"],
    *,
    teacher: Float[Tensor, "a n k"],
    center: Float[Tensor, " k"],
    teacher_temperature: float = 0.04,
    student_temperature: float = 0.1,
) -> Terms:
    """mean over pairs (a, v != a) of mean_i -sum_k p_aik log softmax_k(s_vi / student_temperature).

        p_a = softmax((t_a - center) / teacher_temperature), without gradient

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    https://arxiv.org/abs/2104.14294; code: facebookresearch/dino, main_dino.py. The loss is that of the rows of this
    process.

    Args:
        student: logits of V views; the n samples of view 1, then of view 2, ...
        teacher: logits of the first views, in the same order.
        center: what is subtracted from them, see `dino_center`.
        teacher_temperature: the lower, the sharper the targets.
        student_temperature: of the predictions.

    Returns:
        `loss`, and its two parts: `entropy` of the targets, which is 0 or log k in a collapse, and `divergence`
        (Kullback-Leibler) of the predictions.

    Raises:
        InputError: student logits that are not floating point (r, k) with r >= 2, or a loss that is not finite.
    """
    views = at_least_float32(student).unflatten(0, (-1, teacher.shape[1]))
    targets = ((at_least_float32(teacher.detach()) - center) / teacher_temperature).softmax(-1)
    return _swapped((views / student_temperature).log_softmax(-1), targets, range(len(targets)))


@torch.no_grad()
def dino_center(
    center: Float[Tensor, " k"], teacher: Float[Tensor, "*shape k"], *, momentum: float = 0.9
) -> Float[Tensor, " k"]:
    """momentum * center + (1 - momentum) * mean of the teacher's logits over views, samples and processes."""
    mean = at_least_float32(teacher).flatten(0, -2).mean(0)
    return torch.lerp((all_reduce_sum(mean) / world_size()).to(center.dtype), center, momentum)


def _swapped(
    log_predictions: Float[Tensor, "v n k"], targets: Float[Tensor, "a n k"], views_of_targets: Sequence[int]
) -> Terms:
    others = log_predictions.sum(0) - log_predictions[list(views_of_targets)]
    loss = -(targets * others).sum(-1).mean() / (len(log_predictions) - 1)
    entropy = torch.special.entr(targets).sum(-1).mean()
    return {"loss": loss, "entropy": entropy, "divergence": loss - entropy}
