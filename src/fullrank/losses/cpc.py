"""Contrastive predictive coding on a grid: which of all patches is the one some rows below?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank import distributed
from fullrank.errors import InputError
from fullrank.losses.inputs import Terms, at_least_float32, full_precision


def cpc(predictions: Mapping[int, Float[Tensor, "n _ w t"]], targets: Float[Tensor, "n h w t"]) -> Terms:
    """sum_k mean_irc [ logsumexp_j p_irc . t_j - p_irc . t_i(r+k)c ], j over all patches of all images of the batch.

    Henaff et al., "Data-Efficient Image Recognition with Contrastive Predictive Coding", ICML 2020,
    https://arxiv.org/abs/1905.09272, appendix A.2; there is no released code. Neither temperature nor normalisation.

    Args:
        predictions: by number of rows k, what the places of rows 0 .. h - k - 1 predict of rows k .. h - 1.
        targets: of every patch: images, rows, columns, width.

    Returns:
        `loss`, and `rows_K`, the cross-entropy of each k.

    Raises:
        InputError: predictions that do not cover the rows from k on.
    """
    n, height, width, size = targets.shape
    terms: Terms = {}
    with full_precision(targets):
        everything = distributed.gather_rows(at_least_float32(targets).flatten(0, 2))  # (P n h w, t)
        place = torch.arange(n * height * width, device=targets.device).view(n, height, width)
        place += distributed.rank() * place.numel()
        for k, predicted in predictions.items():
            if predicted.shape != (n, height - k, width, size):
                expected = f"expected {(n, height - k, width, size)} for targets {tuple(targets.shape)}"
                raise InputError(f"cpc: predictions of {k} rows below have shape {tuple(predicted.shape)}, {expected}")
            logits = at_least_float32(predicted).flatten(0, 2) @ everything.T
            terms[f"rows_{k}"] = nn.functional.cross_entropy(logits, place[:, k:].flatten())
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}
