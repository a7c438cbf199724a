"""Weighted k-nearest-neighbour classification of frozen features.

    w_i = exp(cos(f, f_i) / temperature)   over the k training features f_i most similar to f
    prediction = argmax_c sum over neighbours of class c of w_i

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018; the code
followed is facebookresearch/dino eval_knn.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from fullrank.errors import InputError
from fullrank.evaluation.protocol import PROTOCOLS, Array, Result, accuracies, check_samples, find_hits

USUAL_NEIGHBOURS = 20  # the number that the literature quotes
SIMILARITIES = 1 << 24  # held at a time: 64 MB in float32


@PROTOCOLS.register("knn")
def knn(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, " n"] | None,
    test_features: Float[Array, "m d"],
    test_labels: Int[Array, " m"] | None,
    *,
    k: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
) -> Result:
    """Accuracy of the weighted kNN classifier for every number of neighbours in one pass.

    Memory does not grow with n * m. A test sample counts for top-5 only if its class received a vote.

    Args:
        train_features: of any length; they are normalised here.
        train_labels: whole numbers from 0, not necessarily contiguous.
        test_features: judged on.
        test_labels: a label that no training sample has counts as an error.
        k: numbers of neighbours; more than n are cut to n. The scores that are quoted are those of 20
            neighbours where 20 is in `k`, else of the first; `details` holds all.
        temperature: small values let the nearest neighbours decide.

    Raises:
        InputError: features or labels cannot be used (see `check_samples`), or `k` or `temperature` is not positive.
    """
    neighbours = [int(number) for number in k]
    if not neighbours or min(neighbours) < 1 or not temperature > 0:
        raise InputError(f"knn got k={tuple(neighbours)}, temperature={temperature}: expected positive numbers")
    samples = check_samples(train_features, train_labels, test_features, test_labels)
    n_train, notes = len(samples.train), samples.notes
    if max(neighbours) > n_train:
        notes += (f"k={max(neighbours)} was cut to the {n_train} training samples",)
        neighbours = list(dict.fromkeys(min(number, n_train) for number in neighbours))

    bank, queries = normalize(samples.train, dim=1), normalize(samples.test, dim=1)
    hits = []  # (kinds, chunk, 2) each
    chunk = max(1, SIMILARITIES // n_train)
    for rows, labels in zip(queries.split(chunk), samples.test_labels.split(chunk), strict=True):
        votes = knn_votes(
            bank, samples.train_labels, rows, k=neighbours, temperature=temperature, classes=samples.classes
        )
        hits.append(find_hits(votes, labels, above=0.0))

    judged = {
        number: accuracies(found, samples.test_labels, samples.known)
        for number, found in zip(neighbours, torch.cat(hits, dim=1), strict=True)
    }
    chosen = USUAL_NEIGHBOURS if USUAL_NEIGHBOURS in neighbours else neighbours[0]
    return Result(
        protocol="knn",
        scores=judged[chosen][0],
        n_train=n_train,
        n_test=len(queries),
        classes=samples.classes,
        settings={"k": chosen, "temperature": temperature},
        details={f"k={number}": scores for number, (scores, _) in judged.items()},
        by_class=judged[chosen][1],
        notes=notes,
    )


def knn_votes(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    *,
    k: Sequence[int],
    temperature: float,
    classes: int,
) -> Float[Tensor, "kinds m classes"]:
    """Votes of the k nearest for every class, relative to the vote of the nearest; one table for each k.

    Args:
        bank: rows of length 1.
        labels: of the bank, from 0 to classes - 1.
        queries: rows of length 1; all m * n similarities are held at once.
        k: numbers of neighbours, none above n.
        temperature: divides the similarities. Votes are exp((s - s_nearest) / temperature), which is
            exp(s / temperature) of the published code up to one factor a row, and never overflows.
        classes: how many.
    """
    similarity, nearest = (queries @ bank.T).topk(max(k), dim=1)
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    voters = labels[nearest]
    votes = weights.new_zeros(len(k), len(queries), classes)
    for table, number in zip(votes, k, strict=True):
        table.scatter_add_(1, voters[:, :number], weights[:, :number])
    return votes
