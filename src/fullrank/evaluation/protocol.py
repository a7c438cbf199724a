"""What every evaluation protocol takes and gives: frozen features with labels in, one result out.

A protocol is a function `(train_features, train_labels, test_features, test_labels, **settings) -> Result`,
registered by one line; the command line finds it by that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fullrank.errors import InputError
from fullrank.evaluation.average_precision import average_precision
from fullrank.registry import Registry

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Result:
    """What a protocol measured.

    Attributes:
        protocol: its name.
        scores: those that are quoted, percent, the most quoted first. Of one label a sample: `top1` and `top5`, the
            share of test samples whose label comes first or among the first five, and `per_class`, the mean over
            classes of top-1. Of several: `map`, the mean over classes of average precision.
        n_train: samples that the classifier learnt from.
        n_test: samples that it was judged on.
        classes: how many labels the training samples have.
        settings: what the numbers depend on.
        details: further scores by setting, such as those of every number of neighbours.
        by_class: the first score of every class, percent, by the class's number or name.
        notes: what the reader has to know about this data, one sentence each.
    """

    protocol: str
    scores: dict[str, float]
    n_train: int
    n_test: int
    classes: int
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, ready for JSON; scores stand beside all else."""
        return {"protocol": self.protocol, **self.scores, **asdict(self), "notes": list(self.notes)}


PROTOCOLS: Registry[Callable[..., Result]] = Registry("protocol")
MULTILABEL: Registry[Callable[..., Result]] = Registry("protocol for several labels a picture")
"""The same with targets (n, classes) in place of labels."""


@dataclass(frozen=True)
class Samples:
    """Checked features (float32 or float64) and labels of both parts, on one device."""

    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]  # from 0 to classes - 1
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]  # -1 for a label that no training sample has
    known: Int[Tensor, " classes"]  # the labels that training samples have
    notes: tuple[str, ...]  # see `Result`

    @property
    def classes(self) -> int:
        """How many labels training samples have."""
        return len(self.known)


def check_samples(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, " n"] | None,
    test_features: Float[Array, "m d"],
    test_labels: Int[Array, " m"] | None,
) -> Samples:
    """Both parts as tensors with labels numbered from 0.

    Raises `InputError` for labels that are missing, negative or of one class only, for features that are not
    finite, and for lengths or widths that do not fit together.
    """
    train = check_features("train", train_features)
    test = check_features("test", test_features).to(train)
    if train.shape[1] != test.shape[1]:
        raise InputError(
            f"train features are {train.shape[1]} wide and test features {test.shape[1]}: "
            "expected the same width, from the same network"
        )
    known, positions = _check_labels("train", train_labels, train).unique(return_inverse=True)
    if len(known) < 2:
        raise InputError(f"all {len(train)} train labels are {int(known[0])}: expected at least two classes")
    labels = _check_labels("test", test_labels, test)
    places = torch.searchsorted(known, labels).clamp_max(len(known) - 1)
    unseen = known[places] != labels
    notes = (f"{int(unseen.sum())} test samples have a label that no train sample has",) if unseen.any() else ()
    return Samples(train, positions, test, places.masked_fill(unseen, -1), known, notes)


def check_features(part: str, features: Float[Array, "n d"]) -> Float[Tensor, "n d"]:
    """Features as a float32 or float64 tensor. Raises `InputError` where they are empty or not finite."""
    tensor = torch.as_tensor(features)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(f"{part} features have shape {tuple(tensor.shape)}: expected (samples, width), not empty")
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    bad = len(tensor) - int(tensor.isfinite().all(dim=1).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(tensor)} {part} features hold NaN or infinity: expected finite numbers; "
            "run the network in float32 and see whether its weights are finite"
        )
    return tensor


def _check_labels(part: str, labels: Int[Array, " n"] | None, features: Tensor) -> Int[Tensor, " n"]:
    if labels is None:
        raise InputError(f"the {part} data has no labels: expected one a sample; name data with class subfolders")
    tensor = torch.as_tensor(labels).to(features.device)
    if tensor.is_floating_point() or tensor.shape != features.shape[:1]:
        raise InputError(
            f"{part} labels are {tensor.dtype} of shape {tuple(tensor.shape)}: "
            f"expected {len(features)} whole numbers, one for each feature"
        )
    if tensor.min() < 0:
        raise InputError(
            f"{int((tensor < 0).sum())} {part} labels are negative: expected numbers from 0; "
            "leave samples without a label out"
        )
    return tensor.long()


def find_hits(
    scores: Float[Tensor, "g m classes"], labels: Int[Tensor, " m"], *, above: float = -float("inf")
) -> Bool[Tensor, "g m 2"]:
    """Whether a sample has its label first, and whether among the first five, for g classifiers.

    A label whose score is not larger than `above`, or is NaN, or that is -1, is never a hit.
    """
    of_label = scores.gather(2, labels.clamp_min(0).expand(len(scores), -1)[..., None])
    counts = (of_label[..., 0] > above) & (labels >= 0)
    first = counts & (scores.argmax(dim=2) == labels)
    five = counts & ((scores > of_label).sum(dim=2) < 5)
    return torch.stack([first, five], dim=2)


def accuracies(
    hits: Bool[Tensor, "m 2"], labels: Int[Tensor, " m"], known: Int[Tensor, " classes"]
) -> tuple[dict[str, float], dict[str, float]]:
    """Top-1, top-5 and the mean over classes of top-1, and top-1 of every class, percent.

    Labels that no training sample has (-1) count in the first two; `known` is what the labels 0, 1, ... are called.
    """
    top1, top5 = (100 * hits.double().mean(0)).tolist()
    counts = torch.bincount(labels[labels >= 0], minlength=len(known))
    right = torch.bincount(labels[hits[:, 0]], minlength=len(known))
    present = counts.nonzero()[:, 0]
    shares = 100 * right[present].double() / counts[present]
    by_class = dict(zip(map(str, known[present].tolist()), shares.tolist(), strict=True))
    return {"top1": top1, "top5": top5, "per_class": float(shares.mean())}, by_class


@dataclass(frozen=True)
class ManyLabelled:
    """Checked features and targets of both parts, where a sample may have several labels."""

    train: Float[Tensor, "n d"]
    train_targets: Int[Tensor, "n classes"]  # 1 present, 0 absent, -1 neither right nor wrong
    test: Float[Tensor, "m d"]
    test_targets: Int[Tensor, "m classes"]
    kept: Int[Tensor, " classes"]  # the classes that can be learnt and judged, of those given
    notes: tuple[str, ...]  # see `Result`


def check_targets(
    train_features: Float[Array, "n d"],
    train_targets: Int[Array, "n all"] | None,
    test_features: Float[Array, "m d"],
    test_targets: Int[Array, "m all"] | None,
    *,
    fewest: int = 1,
) -> ManyLabelled:
    """Both parts as tensors, and the classes of which training has `fewest` samples with and without, and the test one.

    Raises `InputError` for targets that do not fit, where no class is left, and as `check_samples`.
    """
    train = check_features("train", train_features)
    test = check_features("test", test_features).to(train)
    if train.shape[1] != test.shape[1]:
        raise InputError(f"train features are {train.shape[1]} wide and test features {test.shape[1]}")
    learnt, judged = _check_table("train", train_targets, train), _check_table("test", test_targets, test)
    if learnt.shape[1] != judged.shape[1]:
        raise InputError(f"train targets have {learnt.shape[1]} classes and test targets {judged.shape[1]}")
    enough = ((learnt == 1).sum(0) >= fewest) & ((learnt != 1).sum(0) >= fewest) & (judged == 1).any(0)
    kept = enough.nonzero()[:, 0]
    if not len(kept):
        raise InputError(f"no class has {fewest} train samples with and without it and a test sample with it")
    left = learnt.shape[1] - len(kept)
    notes = (
        (f"{left} of {learnt.shape[1]} classes are left out: fewer than {fewest} train samples, or no test sample",)
        if left
        else ()
    )
    return ManyLabelled(train, learnt[:, kept], test, judged[:, kept], kept, notes)


def _check_table(part: str, targets: Int[Array, "n classes"] | None, features: Tensor) -> Int[Tensor, "n classes"]:
    if targets is None:
        raise InputError(f"the {part} data has no labels: name a file of labels with --annotations")
    tensor = torch.as_tensor(targets).to(features.device)
    if tensor.is_floating_point() or tensor.ndim != 2 or len(tensor) != len(features):
        raise InputError(
            f"{part} targets are {tensor.dtype} of shape {tuple(tensor.shape)}: expected ({len(features)}, classes) "
            "of 1, 0 and -1"
        )
    if tensor.min() < -1 or tensor.max() > 1:
        raise InputError(f"{part} targets go from {int(tensor.min())} to {int(tensor.max())}: expected 1, 0 and -1")
    return tensor.long()


def as_targets(labels: Int[Array, " n"], classes: int) -> Int[Tensor, "n classes"]:
    """One label a sample as targets of all classes; a label of -1 is none of them."""
    return (torch.as_tensor(labels).long()[:, None] == torch.arange(classes)).long()


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, kept: Int[Tensor, " classes"]
) -> tuple[dict[str, float], dict[str, float]]:
    """mAP by area and by 11 points, and average precision by area of every class, percent."""
    columns = list(zip(np.asarray(scores).T, np.asarray(targets).T, strict=True))
    area = [100 * average_precision(one, other) for one, other in columns]
    points = [100 * average_precision(one, other, rule="11-point") for one, other in columns]
    by_class = dict(zip(map(str, kept.tolist()), area, strict=True))
    return {"map": float(np.mean(area)), "map_11": float(np.mean(points))}, by_class
