"""Factors planted in features are read as well as theory says."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.errors import InputError
from fullrank.evaluation import factor_scores

N, M = 1500, 1500
KINDS = {"turn": "angle"}


def planted(noise: float = 0.5) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Features (N + M, 24) that hold `size`, `turn` and `shape` linearly, under noise, and nothing of `absent`."""
    chance = np.random.default_rng(0)
    size, absent = chance.normal(size=(2, N + M))
    turn = chance.uniform(-np.pi, np.pi, N + M)
    shape = chance.choice(4, N + M, p=(0.4, 0.3, 0.2, 0.1))
    signal = np.stack([size, *(math.sqrt(2) * each(turn) for each in (np.cos, np.sin))], axis=1)
    directions = np.linalg.qr(chance.normal(size=(24, 24)))[0]
    features = (signal + noise * chance.normal(size=signal.shape)) @ directions[:3]
    features += 20 * np.eye(4)[shape] @ directions[3:7] + chance.normal(size=(N + M, 17)) @ directions[7:]
    return torch.tensor(features), {"size": size, "turn": turn, "shape": shape, "absent": absent}


def scores_of(features: Tensor, factors: dict[str, np.ndarray], kinds=KINDS) -> dict[str, float]:
    first, second = ({name: each[part] for name, each in factors.items()} for part in (slice(N), slice(N, None)))
    return {each.name: each for each in factor_scores(features[:N], first, features[N:], second, kinds)}


def test_share_of_the_variance_that_noise_leaves() -> None:
    scores = scores_of(*planted(noise=0.5))
    explained = 1 / (1 + 0.5**2)
    assert scores["size"].score == pytest.approx(explained, abs=0.03)
    assert scores["turn"].score == pytest.approx(explained, abs=0.03)
    assert scores["absent"].score == pytest.approx(0.0, abs=0.03)
    assert {scores[name].kind for name in ("size", "turn", "absent")} == {"r2"}
    assert {scores[name].chance for name in ("size", "turn", "absent")} == {0.0}


def test_noise_without_penalty_would_score_below_zero() -> None:
    # 100 samples, 90 useless dimensions: least squares explains less than nothing, the penalty nearly nothing.
    chance = np.random.default_rng(1)
    features, values = torch.tensor(chance.normal(size=(1100, 90))), {"absent": chance.normal(size=1100)}
    parts = {"absent": values["absent"][:100]}, {"absent": values["absent"][100:]}
    (score,) = factor_scores(features[:100], parts[0], features[100:], parts[1])
    assert -0.1 < score.score < 0.05


def test_category_beside_its_most_frequent_value() -> None:
    features, factors = planted()
    score = scores_of(features, factors)["shape"]
    assert score.kind == "accuracy"
    assert score.score > 0.99
    assert score.chance == pytest.approx((factors["shape"][N:] == 0).mean())
    hidden = scores_of(features * 0 + torch.tensor(factors["size"])[:, None], factors)["shape"]
    assert hidden.score == pytest.approx(hidden.chance, abs=0.02)
    assert hidden.to_dict() == {
        "name": "shape",
        "kind": "accuracy",
        "score": hidden.score,
        "chance": hidden.chance,
    }


def test_angle_is_read_through_its_cosine_and_sine() -> None:
    features, factors = planted(noise=0.01)
    assert scores_of(features, factors)["turn"].score > 0.99
    assert scores_of(features, factors, {})["turn"].score < 0.8
    assert scores_of(features, factors | {"turn": factors["turn"] + 40 * np.pi})["turn"].score > 0.99
    half = torch.tensor(np.cos(factors["turn"]))[:, None]
    assert scores_of(half, factors)["turn"].score == pytest.approx(0.5, abs=0.03)


def test_factor_that_does_not_vary_is_left_out() -> None:
    features, factors = planted()
    still = {
        "fixed": np.zeros(N + M),
        "fixed in test": np.r_[np.arange(N), np.zeros(M)],
        "fixed in train": np.r_[np.zeros(N), np.arange(M)],
    }
    assert scores_of(features, {"size": factors["size"]} | still).keys() == {"size"}


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ({"size": np.zeros(N + M - 1)}, None, rf"'size' has shape \({M - 1},\): expected \({M},\)"),
        ({"size": np.full(N + M, np.nan)}, None, "'size' holds NaN"),
        ({}, {"size": "angel"}, "unknown kind of factor 'angel': did you mean 'angle'"),
    ],
)
def test_what_cannot_be_used(change: dict, kinds: dict | None, message: str) -> None:
    features, factors = planted()
    with pytest.raises(InputError, match=message):
        scores_of(features, factors | change, kinds)


def test_missing_in_the_test_part() -> None:
    features, factors = planted()
    with pytest.raises(InputError, match="'size' has shape"):
        factor_scores(features[:N], {"size": factors["size"][:N]}, features[N:], {})
