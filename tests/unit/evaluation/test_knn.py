"""Weighted kNN against scikit-learn's, and at its edges."""

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from fullrank.errors import InputError
from fullrank.evaluation import knn
from fullrank.evaluation.knn import knn_votes

module = sys.modules["fullrank.evaluation.knn"]

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]


def overlapping_classes(n: int = 400, m: int = 150, d: int = 6, classes: int = 8) -> Arrays:
    chance = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n + m,), generator=chance)
    centres = torch.randn(classes, d, generator=chance)
    features = centres[labels] + torch.randn(n + m, d, generator=chance)
    return features[:n], labels[:n], features[n:], labels[n:]


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_scikit_learn(temperature: float) -> None:
    arrays = overlapping_classes()
    train, train_labels, test, test_labels = (array.numpy() for array in arrays)
    result = knn(*arrays, k=(1, 7, 50, 400), temperature=temperature)
    for k in (1, 7, 50, 400):
        theirs = KNeighborsClassifier(
            n_neighbors=k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
        )
        chances = theirs.fit(train, train_labels).predict_proba(test)
        scores = result.details[f"k={k}"]
        assert scores["top1"] == pytest.approx(100 * top_k_accuracy_score(test_labels, chances, k=1))
        if k >= 50:  # every class has votes
            assert scores["top5"] == pytest.approx(100 * top_k_accuracy_score(test_labels, chances, k=5))
    assert result.classes == 8
    assert (result.n_train, result.n_test) == (400, 150)


def test_result_is_that_of_20_neighbours_or_of_the_first() -> None:
    arrays = overlapping_classes()
    many, one = knn(*arrays, k=(5, 20, 200)), knn(*arrays, k=(20,))
    assert (many.scores["top1"], many.scores["top5"], many.settings["k"]) == (
        one.scores["top1"],
        one.scores["top5"],
        20,
    )
    assert many.details.keys() == {"k=5", "k=20", "k=200"}
    other = knn(*arrays, k=(50, 5))
    assert other.settings["k"] == 50
    assert other.scores["top1"] == other.details["k=50"]["top1"] != other.details["k=5"]["top1"]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = overlapping_classes()
    whole = knn(*arrays, k=(3, 20))
    monkeypatch.setattr(module, "SIMILARITIES", 400 * 7)
    rows = []
    monkeypatch.setattr(module, "knn_votes", lambda *a, **b: rows.append(len(a[2])) or knn_votes(*a, **b))
    assert knn(*arrays, k=(3, 20)) == whole
    assert rows == [7] * 21 + [3]


def test_lengths_of_features_do_not_matter_and_low_temperature_leaves_the_nearest() -> None:
    train, train_labels, test, test_labels = overlapping_classes()
    nearest = knn(train, train_labels, test, test_labels, k=(1,)).scores["top1"]
    cold = knn(train * 1e3, train_labels, test * 1e-3, test_labels, k=(100,), temperature=1e-4)
    assert cold.scores["top1"] == nearest


def test_classes_without_a_vote_are_not_among_the_first_five() -> None:
    train = torch.eye(8)
    labels = torch.arange(8)
    result = knn(train, labels, train[:1], labels[:1] + 1, k=(1, 8), temperature=0.1)
    assert [scores["top5"] for scores in result.details.values()] == [0.0, 100.0]
    assert [scores["top1"] for scores in result.details.values()] == [0.0, 0.0]


def test_more_neighbours_than_samples_are_cut_and_noted() -> None:
    arrays = overlapping_classes(n=30)
    result = knn(*arrays, k=(10, 100, 200))
    assert result.details.keys() == {"k=10", "k=30"}
    assert result.notes == ("k=200 was cut to the 30 training samples",)


@pytest.mark.parametrize("wrong", [{"k": (0, 3)}, {"k": ()}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(InputError, match="expected positive numbers"):
        knn(*overlapping_classes(), **wrong)
