"""Average precision of boxes as Pascal VOC 2007 computes it: eleven points, and what is difficult is not counted.

Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010; the rules of the development kit, as in
detectron2's pascal_voc_evaluation.py.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

from fullrank.evaluation.average_precision import eleven_points

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


class Boxes(NamedTuple):
    """Boxes of one picture, found or known.

    Attributes:
        boxes: (k, 4), left, top, right, bottom, the latter two exclusive.
        labels: (k,).
        marks: (k,), of what was found its scores, of what is known whether it is difficult.
    """

    boxes: np.ndarray
    labels: np.ndarray
    marks: np.ndarray


class _Class:
    """What was found of one class in all pictures: score, overlap with the nearest known box, and which one that is."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.overlaps: list[float] = []
        self.nearest: list[int] = []  # among all known boxes of the class; -1: there is none in the picture
        self.difficult: list[bool] = []

    def add(self, found: Boxes, known: Boxes) -> None:
        first = len(self.difficult)
        self.difficult += known.marks.astype(bool).tolist()
        self.scores += found.marks.tolist()
        if not len(known.boxes):
            self.overlaps += [0.0] * len(found.boxes)
            self.nearest += [-1] * len(found.boxes)
            return
        table = box_iou(*(torch.as_tensor(each.boxes, dtype=torch.float64) for each in (found, known)))
        value, place = table.max(1)
        self.overlaps += value.tolist()
        self.nearest += (place + first).tolist()

    def average_precision(self, threshold: float) -> float:
        """Found in the order of scores: the first that overlaps a known box by more than `threshold` is right."""
        taken, right = np.zeros(len(self.difficult), bool), []
        for each in np.argsort(-np.array(self.scores), kind="stable"):
            nearest = self.nearest[each]
            if self.overlaps[each] <= threshold:
                right.append(False)
            elif not self.difficult[nearest]:
                right.append(not taken[nearest])
                taken[nearest] = True
        hits = np.cumsum(np.array(right, dtype=float))
        precision = hits / np.arange(1, len(hits) + 1)
        return eleven_points(precision, hits / (len(self.difficult) - sum(self.difficult)))


def voc_scores(found: list[Boxes], known: list[Boxes]) -> dict[str, float]:
    """`voc_ap` (the mean over overlaps of 0.5 to 0.95), `voc_ap50`, `voc_ap75`: means over classes, percent.

    Args:
        found: what a detector gave for each picture.
        known: what is marked in it. Classes of which nothing but the difficult is marked are left out.
    """
    classes: dict[int, _Class] = defaultdict(_Class)
    for given, marked in zip(found, known, strict=True):
        for label in {*given.labels.tolist(), *marked.labels.tolist()}:
            own = (Boxes(*(part[each.labels == label] for part in each)) for each in (given, marked))
            classes[label].add(*own)
    judged = [each for each in classes.values() if not all(each.difficult)]
    table = [[each.average_precision(threshold) for each in judged] for threshold in THRESHOLDS]
    if not judged:
        return dict.fromkeys(("voc_ap", "voc_ap50", "voc_ap75"), float("nan"))
    means = 100 * np.array(table).mean(1)
    return {"voc_ap": float(means.mean()), "voc_ap50": float(means[0]), "voc_ap75": float(means[5])}
