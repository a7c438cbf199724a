"""OBoW's loss: crops of an image predict the bag of visual words that a teacher makes of the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.losses.inputs import Terms, at_least_float32, full_precision


def obow(logits: Mapping[str, Sequence[Float[Tensor, "_ _"]]], bags: Sequence[Float[Tensor, "n _"]]) -> Terms:
    """sum over kinds of crops, mean over levels, mean over crops of KL(bag of the image || softmax of the logits).

    Gidaris et al., "OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning", CVPR 2021,
    https://arxiv.org/abs/2012.11552; code: valeoai/obow, builder_obow.py `_bow_loss`. The paper has the cross-entropy,
    which is larger by the entropy of the bags and has the same gradient.

    Args:
        logits: by kind of crop, for each level (n m, words): m crops of an image stand together.
        bags: for each level (n, words), rows of sum 1 without gradient.

    Returns:
        `loss`, and the divergence of each kind of crop by its name.

    Raises:
        InputError: another number of levels or words, or crops that do not divide among the images.
    """
    terms: Terms = {}
    with full_precision(bags[0]):
        for kind, predicted in logits.items():
            shapes = [tuple(rows.shape) for rows in predicted]
            expected = [(shapes[0][0], bag.shape[1]) for bag in bags]
            if shapes != expected or shapes[0][0] % len(bags[0]):
                raise InputError(
                    f"obow: logits {kind} have shapes {shapes}, bags {[tuple(bag.shape) for bag in bags]}: "
                    "give (n m, words) logits for (n, words) bags of the same levels"
                )
            divergences = [_divergence(rows, bag) for rows, bag in zip(predicted, bags, strict=True)]
            terms[kind] = torch.stack(divergences).mean()
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def _divergence(logits: Tensor, bags: Tensor) -> Tensor:
    shares = at_least_float32(logits).log_softmax(1)
    return nn.functional.kl_div(shares, bags.repeat_interleave(len(logits) // len(bags), 0), reduction="batchmean")
