"""Average precision as the VOC benchmarks compute it: the area under the envelope, and the 11-point rule of 2007."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fullrank.errors import InputError, unknown

Rule = Literal["area", "11-point"]


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each sample, from the highest score down, (k,) each.

    As `get_precision_recall` of facebookresearch/vissl (utils/svm_utils/evaluate.py).

    Args:
        scores: (n,).
        targets: (n,), 1 present, 0 absent, -1 ignored: such samples are left out.

    Raises:
        InputError: other targets, or none that is present.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.shape != targets.shape or scores.ndim != 1 or not np.isin(targets, (-1, 0, 1)).all():
        raise InputError(f"scores {scores.shape} and targets {targets.shape}: expected (n,) each, targets 1, 0 or -1")
    kept = targets[targets >= 0][np.argsort(-scores[targets >= 0], kind="stable")]
    if not kept.any():
        raise InputError(f"none of {len(kept)} targets is present: average precision needs one")
    hits = np.cumsum(kept)
    return hits / np.arange(1, len(kept) + 1), hits / hits[-1]


def eleven_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """The mean over t = 0, 0.1, ..., 1 of the highest precision at a recall of at least t."""
    return float(np.mean([precision[recall >= t].max(initial=0.0) for t in np.arange(0.0, 1.1, 0.1)]))


def average_precision(scores: np.ndarray, targets: np.ndarray, *, rule: Rule = "area") -> float:
    """Average precision of one class, in 0 .. 1.

    `area` (the SVM benchmark on VOC07): precision is made to fall with recall, and summed over the steps of recall.
    `11-point` (detection on VOC07): the mean over t = 0, 0.1, ..., 1 of the highest precision at a recall of at least
    t; t is a multiple of 0.1 in floating point, so that a recall of exactly 0.3 misses 0.30000000000000004, as in the
    authors' code. scikit-learn's average precision has no envelope and is neither.

    Raises:
        InputError: as `precision_recall`, or another rule.
    """
    precision, recall = precision_recall(scores, targets)
    if rule == "11-point":
        return eleven_points(precision, recall)
    if rule != "area":
        raise unknown("rule", rule, ("area", "11-point"))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
