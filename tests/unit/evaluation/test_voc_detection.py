"""VOC's average precision of boxes against the rules written out, box by box."""

import numpy as np
import pytest

from fullrank.evaluation.voc_detection import THRESHOLDS, Boxes, voc_scores


def boxes(rows):
    """Rows of left, top, right, bottom, label, mark."""
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


def overlap(a, b):
    wide, high = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (a, b))
    return wide * high / (areas - wide * high)


def plain(found, known, label, threshold):
    """The development kit, line by line."""
    rows = [(s, p, b) for p, each in enumerate(found) for b, k, s in zip(*each, strict=True) if k == label]
    of = [[[b, bool(d), False] for b, k, d in zip(*each, strict=True) if k == label] for each in known]
    positives = sum(not each[1] for picture in of for each in picture)
    hits = misses = 0
    curve = []
    for _, picture, box in sorted(rows, key=lambda row: -row[0]):
        best, nearest = -1.0, None
        for each in of[picture]:
            if overlap(box, each[0]) > best:
                best, nearest = overlap(box, each[0]), each
        if best > threshold and nearest[1]:
            continue
        if best > threshold and not nearest[2]:
            nearest[2], hits = True, hits + 1
        else:
            misses += 1
        curve.append((hits / positives, hits / (hits + misses)))
    return np.mean([max([p for r, p in curve if r >= t], default=0.0) for t in np.arange(0.0, 1.1, 0.1)])


def test_it_is_the_development_kit():
    chance = np.random.default_rng(0)
    found, known = [], []
    for _ in range(30):
        corners = chance.integers(0, 40, (6, 2))
        real = np.c_[
            corners, corners + chance.integers(8, 30, (6, 2)), chance.integers(0, 3, 6), chance.random(6) < 0.2
        ]
        moved = real[chance.integers(0, 6, 9)] + np.c_[chance.integers(-4, 5, (9, 4)), np.zeros((9, 2))]
        moved[:, 5] = chance.random(9)
        known.append(boxes(real))
        found.append(boxes(moved))
    scores = voc_scores(found, known)
    table = [[plain(found, known, label, threshold) for label in range(3)] for threshold in THRESHOLDS]
    assert scores["voc_ap50"] == pytest.approx(100 * np.mean(table[0]), abs=1e-9)
    assert scores["voc_ap75"] == pytest.approx(100 * np.mean(table[5]), abs=1e-9)
    assert scores["voc_ap"] == pytest.approx(100 * np.mean(table), abs=1e-9)


def test_what_is_difficult_excuses_only_what_overlaps_it():
    known = [boxes([[0, 0, 100, 100, 0, 1], [200, 0, 210, 10, 0, 0]])]
    hit = [200, 0, 210, 10, 0, 0.5]
    assert voc_scores([boxes([[0, 0, 100, 90, 0, 0.9], hit])], known)["voc_ap50"] == 100
    assert voc_scores([boxes([[0, 0, 30, 30, 0, 0.9], hit])], known)["voc_ap50"] == 50


def test_classes_that_are_only_difficult_or_not_there_are_left_out():
    known = [boxes([[0, 0, 9, 9, 0, 0], [0, 0, 9, 9, 1, 1]])]
    assert voc_scores([boxes([[0, 0, 9, 9, 0, 0.5], [0, 0, 9, 9, 2, 0.9]])], known)["voc_ap50"] == 100
    assert np.isnan(voc_scores([boxes([])], [boxes([])])["voc_ap"])
