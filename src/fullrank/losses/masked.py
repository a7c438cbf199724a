"""What masked image modelling compares at the hidden patches: pixels (MAE), features (I-JEPA), visual tokens (BEiT).

And the loss of the discrete autoencoder that makes BEiT's tokens.
"""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fullrank.distributed import all_reduce_sum
from fullrank.losses.inputs import Terms, at_least_float32, full_precision


def mae(predictions: Float[Tensor, "n t p"], targets: Float[Tensor, "n t p"], hidden: Bool[Tensor, "n t"]) -> Terms:
    """sum_i m_i |x_i - y_i|^2 / p / sum_i m_i over all patches i of the batch, m_i = 1 where hidden: a global ratio.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, https://arxiv.org/abs/2111.06377; code:
    facebookresearch/mae, models_mae.py `forward_loss`. In data-parallel training both sums are those of all processes.

    Args:
        predictions: x, pixels of every patch.
        targets: y, what they should be.
        hidden: patches that count.

    Returns:
        `loss`, and `reconstruction`, the same.
    """
    with full_precision(predictions):
        error = (at_least_float32(predictions) - at_least_float32(targets)).square().mean(2)
        loss = _mean((error * hidden).sum(), hidden.sum())
    return {"loss": loss, "reconstruction": loss}


def ijepa(predictions: Float[Tensor, "r k d"], targets: Float[Tensor, "r k d"]) -> Terms:
    """mean over all elements of h(x - y), h(e) = e^2 / 2 where |e| < 1, else |e| - 1/2: the smooth L1 distance.

    Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", CVPR 2023,
    https://arxiv.org/abs/2301.08243; code: facebookresearch/ijepa, src/train.py `loss_fn`. The paper has squared L2
    distances instead.

    Args:
        predictions: x, features of every block's patches.
        targets: y, the target encoder's.

    Returns:
        `loss`, and `prediction`, the same.
    """
    with full_precision(predictions):
        loss = functional.smooth_l1_loss(at_least_float32(predictions), at_least_float32(targets))
    return {"loss": loss, "prediction": loss}


def beit(logits: Float[Tensor, "m k"], codes: Int[Tensor, " m"]) -> Terms:
    """mean over the m hidden patches of -log softmax(x)_code.

    Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, https://arxiv.org/abs/2106.08254; code:
    microsoft/unilm, beit/engine_for_pretraining.py. In data-parallel training the mean is that of all processes, which
    may hide differently many; the authors' code averages the processes' own means.

    Args:
        logits: x, of every code at every hidden patch.
        codes: the visual tokens there.

    Returns:
        `loss`, `cross_entropy`, the same, and `accuracy`, the share of patches whose code has the largest logit.
    """
    with full_precision(logits):
        errors = functional.cross_entropy(at_least_float32(logits), codes, reduction="sum")
        count = codes.new_tensor(len(codes))
        loss = _mean(errors, count)
    right = (logits.detach().argmax(1) == codes).sum().to(loss.dtype)
    return {"loss": loss, "cross_entropy": loss, "accuracy": _mean(right, count)}


def dvae(
    images: Float[Tensor, "n c h w"],
    reconstructions: Float[Tensor, "n c h w"],
    logits: Float[Tensor, "n k y x"],
    *,
    kl: float = 0.0,
    distance: Literal["mse", "smooth_l1"] = "mse",
) -> Terms:
    """distance(images, reconstructions) + kl * sum over pictures and places of KL(softmax(logits) | uniform).

    Code: microsoft/unilm, beit/modeling_discrete_vae.py `DiscreteVAE`. Its divergence is a sum where the name of the
    reduction says a mean: any weight depends on batch and image size. 1e-10 is added to the probabilities inside the
    logarithm, as there.

    Args:
        images: what went in.
        reconstructions: what came out.
        logits: of the k codes at every place.
        kl: weight of the divergence.
        distance: mean squared or smooth L1 distance.

    Returns:
        `loss`, and unweighted `reconstruction` and `divergence`.
    """
    with full_precision(images):
        measure = functional.mse_loss if distance == "mse" else functional.smooth_l1_loss
        reconstruction = measure(at_least_float32(reconstructions), at_least_float32(images))
        probability = at_least_float32(logits).softmax(1)
        surprise = (probability + 1e-10).log() + math.log(logits.shape[1])
        # exp(log(p + 1e-10)) and not p weighs them there.
        divergence = all_reduce_sum(((probability + 1e-10) * surprise).sum())
    return {"loss": reconstruction + kl * divergence, "reconstruction": reconstruction, "divergence": divergence}


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Sums of all processes over each other; 0 where nothing is counted."""
    return all_reduce_sum(total) / all_reduce_sum(count.to(total.dtype)).clamp_min(1)
