"""VSE++: a margin between the score of an image with its caption and those with the captions of others.

Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
https://arxiv.org/abs/1707.05612; code: fartashf/vsepp, model.py `ContrastiveLoss`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import all_reduce_sum, gather_rows, is_distributed, rank
from fullrank.errors import unknown
from fullrank.losses.inputs import Terms, at_least_float32, on_embeddings

MEASURES = ("cosine", "order")


@on_embeddings
def vse(
    images: Float[Tensor, "n d"],
    captions: Float[Tensor, "n d"],
    *,
    margin: float = 0.2,
    max_violation: bool = True,
    measure: str = "cosine",
) -> Terms:
    """sum_i max_{j != i} [m + S_ij - S_ii]_+ + sum_j max_{i != j} [m + S_ij - S_jj]_+, [a]_+ = max(0, a).

    S_ij scores image i with caption j. The two sums run over the batch and are not divided by n. Captions of one
    image that meet in a batch are negatives of each other, as in the code.

    Args:
        images: embeddings of the images, the rows of this process, of length 1.
        captions: embeddings of their captions; row i belongs to row i of `images`.
        margin: m.
        max_violation: the hardest negative of each row and column (VSE++); else the sum over all (VSE0), which is
            the default of the code.
        measure: "cosine", S_ij = <image i, caption j>, or "order", S_ij = -|max(0, caption j - image i)|, for
            embeddings without negative values.

    Returns:
        `loss`; `image_to_text` and `text_to_image`, the two sums.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    images, captions = at_least_float32(images), at_least_float32(captions)
    by_image = scores(images, gather_rows(captions), measure)  # (b, n), this process's images
    # (b, n), this process's captions
    by_caption = scores(gather_rows(images), captions, measure).T if is_distributed() else by_image.T
    image_to_text, text_to_image = (_violations(each, margin, max_violation) for each in (by_image, by_caption))
    return {"loss": image_to_text + text_to_image, "image_to_text": image_to_text, "text_to_image": text_to_image}


def scores(images: Float[Tensor, "n d"], captions: Float[Tensor, "m d"], measure: str) -> Float[Tensor, "n m"]:
    """S: how well every caption fits every image."""
    if measure == "cosine":
        return images @ captions.T
    return -torch.linalg.vector_norm((captions[None] - images[:, None]).clamp_min(0), dim=2)


def _violations(of_own: Float[Tensor, "b n"], margin: float, max_violation: bool) -> Float[Tensor, ""]:
    """The hinge over all processes; row i belongs to column i among this process's."""
    own = torch.arange(len(of_own), device=of_own.device)
    positive = own + rank() * len(of_own)
    cost = (margin + of_own - of_own[own, positive, None]).clamp_min(0)
    cost = cost.masked_fill(positive[:, None] == torch.arange(of_own.shape[1], device=of_own.device), 0)
    return all_reduce_sum((cost.max(1).values if max_violation else cost).sum())
