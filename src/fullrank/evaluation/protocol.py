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
from jaxtyping import Float, Int
from torch import Tensor

from fullrank.errors import InputError
from fullrank.registry import Registry

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Result:
    """What a protocol measured.

    Attributes:
        protocol: its name.
        top1: share of test samples whose label comes first, percent.
        top5: share whose label is among the first five, percent.
        n_train: samples that the classifier learnt from.
        n_test: samples that it was judged on.
        classes: how many labels the training samples have.
        settings: what the numbers depend on.
        details: further scores by setting, such as those of every number of neighbours.
        notes: what the reader has to know about this data, one sentence each.
    """

    protocol: str
    top1: float
    top5: float
    n_train: int
    n_test: int
    classes: int
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, ready for JSON."""
        return {**asdict(self), "notes": list(self.notes)}


PROTOCOLS: Registry[Callable[..., Result]] = Registry("protocol")


@dataclass(frozen=True)
class Samples:
    """Checked features (float32 or float64) and labels of both parts, on one device."""

    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]  # from 0 to classes - 1
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]  # -1 for a label that no training sample has
    classes: int  # how many labels there are in training
    notes: tuple[str, ...]  # see `Result`


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
    return Samples(train, positions, test, places.masked_fill(unseen, -1), len(known), notes)


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


def count_hits(
    scores: Float[Tensor, "g m classes"], labels: Int[Tensor, " m"], *, above: float = -float("inf")
) -> Float[Tensor, "g 2"]:
    """How many of m samples have their label first, and how many among the first five, for g classifiers.

    A label whose score is not larger than `above`, or is NaN, or that is -1, is never a hit.
    """
    of_label = scores.gather(2, labels.clamp_min(0).expand(len(scores), -1)[..., None])
    counts = (of_label[..., 0] > above) & (labels >= 0)
    first = counts & (scores.argmax(dim=2) == labels)
    five = counts & ((scores > of_label).sum(dim=2) < 5)
    return torch.stack([first.sum(1), five.sum(1)], dim=1).float()
