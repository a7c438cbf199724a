"""How much of what generated a picture can be read off its representation by a linear function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fullrank.errors import InputError, unknown
from fullrank.evaluation.linear import linear_probe, standardised
from fullrank.evaluation.protocol import Array, check_features

Kind = Literal["number", "angle", "category"]
KINDS = ("number", "angle", "category")
PENALTIES = np.logspace(-2, 5, 15)


@dataclass(frozen=True)
class FactorScore:
    """How well one factor is read.

    Attributes:
        name: of the factor.
        kind: "r2", the share of its variance that a linear function of the features explains on test samples
            (1 is perfect, 0 is no better than the mean, and below 0 is worse), or "accuracy", a share too.
        score: that share.
        chance: what knowing nothing gives: 0 for "r2", the most frequent category for "accuracy".
    """

    name: str
    kind: str
    score: float
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """The score as plain values, ready for JSON."""
        return asdict(self)


def factor_scores(
    train_features: Float[Array, "n d"],
    train_factors: Mapping[str, np.ndarray],
    test_features: Float[Array, "m d"],
    test_factors: Mapping[str, np.ndarray],
    kinds: Mapping[str, Kind] | None = None,
) -> list[FactorScore]:
    """How well every known factor can be read linearly from frozen features.

    Numbers and angles are read by ridge regression (penalty by leave-one-out on the training samples), angles
    through the pair (cos, sin) as R2 of the two together, categories by `linear_probe`.

    Args:
        train_features: learnt from.
        train_factors: name -> (n,) values. A factor that does not vary in both parts is left out.
        test_features: judged on.
        test_factors: the same names -> (m,).
        kinds: name -> number, angle (in radians) or category; whole numbers are categories and others numbers
            where a name is missing.

    Raises:
        InputError: features that are not finite, factors of another length or not finite, an unknown kind.
    """
    train, test = check_features("train", train_features), check_features("test", test_features)
    scores = []
    for name, values in train_factors.items():
        learnt, asked = _check(name, values, len(train)), _check(name, test_factors.get(name), len(test))
        if len(np.unique(learnt)) < 2 or len(np.unique(asked)) < 2:
            continue
        kind = (kinds or {}).get(name, "category" if learnt.dtype.kind in "iub" else "number")
        if kind not in KINDS:
            raise unknown("kind of factor", kind, KINDS)
        if kind == "category":
            scores.append(_category(name, train, learnt, test, asked))
        else:
            turn = kind == "angle"
            scores.append(FactorScore(name, "r2", _r2(train, _targets(learnt, turn), test, _targets(asked, turn)), 0.0))
    return scores


def _check(name: str, values: np.ndarray | None, count: int) -> np.ndarray:
    array = np.asarray(values) if values is not None else np.empty(0)
    if array.shape != (count,):
        raise InputError(f"factor '{name}' has shape {array.shape}: expected ({count},), one value for each feature")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"factor '{name}' holds NaN or infinity: expected finite values; leave such samples out")
    return array


def _category(name: str, train: Tensor, learnt: np.ndarray, test: Tensor, asked: np.ndarray) -> FactorScore:
    categories, numbers = np.unique(np.concatenate([learnt, asked]), return_inverse=True)
    first, second = numbers[: len(learnt)], numbers[len(learnt) :]
    frequent = np.bincount(first, minlength=len(categories)).argmax()
    accuracy = linear_probe(train, first, test, second).scores["top1"] / 100
    return FactorScore(name, "accuracy", accuracy, float((second == frequent).mean()))


def _targets(values: np.ndarray, turn: bool) -> np.ndarray:
    """(n, 1) or, for angles, (n, 2)."""
    columns = [np.cos(values), np.sin(values)] if turn else [values]
    return np.stack(columns, axis=1).astype(np.float64)


def _r2(train: Tensor, learnt: np.ndarray, test: Tensor, asked: np.ndarray) -> float:
    """Share of the variance explained, the columns weighted by their variance."""
    from sklearn.linear_model import RidgeCV  # slow to import, and most commands never come here
    from sklearn.metrics import r2_score

    features, others = (part.cpu().double().numpy() for part in standardised(train, test))
    ridge = RidgeCV(alphas=PENALTIES, alpha_per_target=True).fit(features, learnt)
    read = ridge.predict(others).reshape(asked.shape)
    return float(r2_score(asked, read, multioutput="variance_weighted"))
