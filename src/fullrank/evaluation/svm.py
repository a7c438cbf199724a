"""One linear SVM a class on frozen features, as on VOC07: cost chosen by cross-validation, area average precision.

Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019,
https://arxiv.org/abs/1905.01235; code: facebookresearch/fair_self_supervision_benchmark tools/svm and vissl.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track

from fullrank.errors import InputError
from fullrank.evaluation.average_precision import average_precision
from fullrank.evaluation.cache import Memory
from fullrank.evaluation.protocol import (
    MULTILABEL,
    PROTOCOLS,
    Array,
    Result,
    as_targets,
    check_samples,
    check_targets,
    mean_average_precision,
)

PRESENT_WEIGHT = 2.0  # of a present sample; an absent one weighs 1
FOLDS = 3
NORM_EPS = 1e-5
VISSL_COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)  # of VISSL's ResNet configuration
FORGETFUL = Memory()
MOST_STEPS = 50  # of Newton's method; a few are enough


@dataclass(frozen=True)
class SVMResult:
    """What the protocol gives for every class.

    Attributes:
        cross_validation: average precision over the folds, (classes, costs), scikit-learn's.
        cost: the chosen one, (classes,).
        weights: (classes, d + 1), the bias last.
        decisions: of the test samples, (m, classes).
        average_precision: of the test samples, (classes,), the area rule; its mean is what papers call mAP.
    """

    cross_validation: np.ndarray
    cost: np.ndarray
    weights: np.ndarray
    decisions: np.ndarray
    average_precision: np.ndarray


def cost_list(costs: Sequence[float], powers: tuple[int, int] = (4, 20), base: float = 0.5) -> list[float]:
    """The costs and then base^k for k in `powers`, the last left out.

    The original benchmark appends 0.5^4 .. 0.5^19 to whatever is given; VISSL appends only where its base is positive.
    """
    return [*costs, *(base**k for k in range(*powers) if base > 0)]


def unit_features(features: np.ndarray) -> np.ndarray:
    """x / (|x| + 1e-5), row by row."""
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + NORM_EPS)


def svm_protocol(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    test_features: np.ndarray,
    test_targets: np.ndarray,
    memory: Memory = FORGETFUL,
    *,
    costs: Sequence[float] = VISSL_COSTS,
) -> SVMResult:
    """Train and judge one SVM a class.

    Ignored samples (-1) are trained on as absent ones and left out of the test, as in the authors' code.

    Args:
        train_features: (n, d), brought to length 1 here.
        train_targets: (n, classes): 1 present, 0 absent, -1 ignored.
        test_features: (m, d).
        test_targets: (m, classes).
        memory: of what cross-validation gave for a class.
        costs: among which cross-validation chooses, the first of equals; see `cost_list`.

    Raises:
        InputError: a class with fewer present or absent samples than folds.
    """
    x, xt = unit_features(np.asarray(train_features)), unit_features(np.asarray(test_features))
    targets = np.where(np.asarray(train_targets) == 1, 1, -1)
    follows = hashlib.blake2b(f"{x.dtype} {x.shape} {list(costs)} {FOLDS} {PRESENT_WEIGHT}".encode(), digest_size=20)
    follows.update(np.ascontiguousarray(x).data)

    def cross_validated(y: np.ndarray) -> list[float]:
        key = follows.copy()
        key.update(np.ascontiguousarray(y).data)
        return memory(key.hexdigest(), lambda: [_score(x, y, cost) for cost in costs])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # liblinear leaves Python's lock
        scored = pool.map(cross_validated, targets.T)
        bar = track(scored, "SVMs, class by class", targets.shape[1], console=Console(stderr=True))
        cross_validation = np.array(list(bar))
    cost = np.asarray(costs)[cross_validation.argmax(1)]
    weights = np.array([fit_svm(x, y, c) for y, c in zip(targets.T, cost, strict=True)])
    decisions = xt @ weights[:, :-1].T + weights[:, -1]
    precisions = [average_precision(d, t) for d, t in zip(decisions.T, np.asarray(test_targets).T, strict=True)]
    return SVMResult(cross_validation, cost, weights, decisions, np.array(precisions))


@MULTILABEL.register("svm")
def svm_of_targets(
    train_features: Float[Array, "n d"],
    train_targets: Int[Array, "n classes"] | None,
    test_features: Float[Array, "m d"],
    test_targets: Int[Array, "m classes"] | None,
    memory: Memory = FORGETFUL,
    *,
    costs: Sequence[float] = VISSL_COSTS,
) -> Result:
    """`svm_protocol` as a result: mAP by area and by 11 points, and average precision of every class.

    Raises:
        InputError: as `check_targets`, with as many samples a class as there are folds.
    """
    samples = check_targets(train_features, train_targets, test_features, test_targets, fewest=FOLDS)
    given = (samples.train, samples.train_targets, samples.test, samples.test_targets)
    x, targets, xt, test = (each.cpu().numpy() for each in given)
    learnt = svm_protocol(x, targets, xt, test, memory, costs=costs)
    scores, by_class = mean_average_precision(learnt.decisions, test, samples.kept)
    chosen = {f"cost={cost:g}": {"classes": float((learnt.cost == cost).sum())} for cost in costs}
    return Result(
        protocol="svm",
        scores=scores,
        n_train=len(samples.train),
        n_test=len(samples.test),
        classes=len(samples.kept),
        settings={"costs": list(costs), "folds": FOLDS},
        details=chosen,
        by_class=by_class,
        notes=samples.notes,
    )


@PROTOCOLS.register("svm")
def svm_of_labels(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, " n"] | None,
    test_features: Float[Array, "m d"],
    test_labels: Int[Array, " m"] | None,
    memory: Memory = FORGETFUL,
    *,
    costs: Sequence[float] = VISSL_COSTS,
) -> Result:
    """The same where every sample has one label: each class against all others."""
    samples = check_samples(train_features, train_labels, test_features, test_labels)
    learnt, judged = (as_targets(part, samples.classes) for part in (samples.train_labels, samples.test_labels))
    result = svm_of_targets(samples.train, learnt, samples.test, judged, memory, costs=costs)
    by_class = {str(int(samples.known[int(place)])): score for place, score in result.by_class.items()}
    return replace(result, by_class=by_class, notes=(*samples.notes, *result.notes))


def held_out_folds(targets: np.ndarray) -> np.ndarray:
    """The fold in which each sample is held out, (n,): stratified, in order.

    Raises `InputError` for a class with fewer present or absent samples than folds.
    """
    fewest = min((targets == sign).sum() for sign in (1, -1))
    if fewest < FOLDS:
        raise InputError(f"a class has {fewest} samples of one kind: {FOLDS} folds need at least {FOLDS}")
    from sklearn.model_selection import StratifiedKFold  # slow to import, and other protocols never come here

    fold = np.empty(len(targets), dtype=np.int64)
    for number, (_, held) in enumerate(StratifiedKFold(FOLDS).split(targets, targets)):
        fold[held] = number
    return fold


def _score(x: np.ndarray, y: np.ndarray, cost: float) -> float:
    from sklearn.metrics import average_precision_score

    fold, scores = held_out_folds(y), []
    for number in range(FOLDS):
        held = fold == number
        w = fit_svm(x[~held], y[~held], cost, exact=False)
        scores.append(average_precision_score(y[held], x[held] @ w[:-1] + w[-1]))
    return float(np.mean(scores))


def fit_svm(x: np.ndarray, y: np.ndarray, cost: float, *, exact: bool = True) -> np.ndarray:
    """min_w |w|^2 / 2 + cost sum_i k_i max(0, 1 - y_i <w, (x_i, 1)>)^2, k_i = 2 where y_i = 1, else 1; (d + 1,).

    The bias is decayed like a weight. liblinear stops near the minimum, at a point that depends on its seed; Newton's
    method goes on from there to the minimum itself where it is to be `exact`.
    """
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=cost, class_weight={1: PRESENT_WEIGHT, -1: 1.0}, dual=False, max_iter=2000).fit(x, y)
    w = np.append(svm.coef_[0], svm.intercept_[0])
    if not exact:
        return w
    rows = np.append(x, np.ones((len(x), 1)), axis=1)
    curvature = 2 * cost * np.where(y == 1, PRESENT_WEIGHT, 1.0)
    active = np.zeros(len(y), dtype=bool)
    for _ in range(MOST_STEPS):
        before, active = active, y * (rows @ w) < 1
        if (before == active).all():
            break
        weighted = rows[active] * curvature[active, None]
        w = np.linalg.solve(np.eye(len(w)) + weighted.T @ rows[active], weighted.T @ y[active])
    return w
