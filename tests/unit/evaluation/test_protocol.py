"""What all protocols share: checked samples, counted hits, results as plain values."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, top_k_accuracy_score
from torch import Tensor

from fullrank.errors import InputError
from fullrank.evaluation import PROTOCOLS, Result
from fullrank.evaluation.protocol import accuracies, check_samples, find_hits


def two_clusters(n: int = 12, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (n, 3) of two classes that any classifier separates."""
    labels = torch.arange(n) % 2
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return torch.where(labels[:, None] == 1, 5.0, -5.0) + noise, labels


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_protocols_are_found_by_name_and_give_json(name: str) -> None:
    train, test = two_clusters(), two_clusters(8, seed=1)
    result = PROTOCOLS.get(name)(*train, *test)
    assert isinstance(result, Result)
    plain = json.loads(json.dumps(result.to_dict()))
    scores = {"top1": 100.0, "top5": 100.0, "per_class": 100.0}
    assert plain | {"settings": 0, "details": 0, "notes": 0} == scores | {
        "protocol": name,
        "scores": scores,
        "by_class": {"0": 100.0, "1": 100.0},
        "n_train": 12,
        "n_test": 8,
        "classes": 2,
        "settings": 0,
        "details": 0,
        "notes": 0,
    }
    assert plain["settings"]


def test_labels_are_numbered_and_unseen_ones_marked() -> None:
    features = torch.eye(4).half()
    samples = check_samples(
        features, torch.tensor([30, 7, 7, 1000]), features.numpy(), np.array([1000, 8, 7, 1001], dtype=np.int32)
    )
    assert samples.train_labels.tolist() == [1, 0, 0, 2]
    assert samples.test_labels.tolist() == [2, -1, 0, -1]
    assert samples.classes == 3
    assert samples.train.dtype == samples.test.dtype == torch.float32
    assert samples.notes == ("2 test samples have a label that no train sample has",)


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_unseen_labels_are_errors(name: str) -> None:
    train, (test, labels) = two_clusters(), two_clusters(8, seed=1)
    result = PROTOCOLS.get(name)(*train, test, labels + 2 * (torch.arange(8) < 2))
    assert (result.scores["top1"], result.scores["top5"]) == (75.0, 75.0)
    assert "2 test samples have a label that no train sample has" in result.notes


GOOD = dict(zip(("train", "train_labels", "test", "test_labels"), (*two_clusters(), *two_clusters(6)), strict=True))
NAN = torch.tensor(torch.nan)
BAD = {
    "train data has no labels": {"train_labels": None},
    "test data has no labels": {"test_labels": None},
    "all 12 train labels are 3: expected at least two": {"train_labels": torch.full((12,), 3)},
    "2 of 12 train features hold NaN": {
        "train": GOOD["train"].index_put((torch.tensor([1, 5]), torch.tensor([0, 2])), NAN)
    },
    "1 of 6 test features hold NaN": {"test": torch.where(torch.arange(6)[:, None] < 1, torch.inf, GOOD["test"])},
    r"train labels are torch.int64 of shape \(11,\): expected 12": {"train_labels": GOOD["train_labels"][:11]},
    "test labels are torch.float32": {"test_labels": GOOD["test_labels"].float()},
    "3 train labels are negative": {"train_labels": GOOD["train_labels"] - (torch.arange(12) % 4 == 0).long()},
    "3 wide and test features 2": {"test": GOOD["test"][:, :2]},
    r"test features have shape \(0, 3\)": {"test": GOOD["test"][:0]},
    r"train features have shape \(36,\)": {"train": GOOD["train"].flatten()},
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("name", ["knn", "linear"])
def test_what_cannot_be_used_is_said_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        PROTOCOLS.get(name)(*(GOOD | BAD[message]).values())
    assert "\n" not in str(error.value)


def test_hits_equal_scikit_learn() -> None:
    chance = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 50, 9, generator=chance)
    labels = torch.randint(9, (50,), generator=chance)
    hits = find_hits(scores, labels).sum(1)
    for table, (first, five) in zip(scores, hits, strict=True):
        assert first == top_k_accuracy_score(labels, table, k=1, normalize=False)
        assert five == top_k_accuracy_score(labels, table, k=5, normalize=False)


def test_marked_labels_diverged_scores_and_scores_at_the_floor_are_no_hits() -> None:
    scores = torch.tensor([[[3.0, 0.0, 0.0], [torch.nan] * 3, [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]]])
    labels = torch.tensor([-1, 0, 0, 2])
    assert find_hits(scores, labels).sum(1).tolist() == [[1, 2]]
    assert find_hits(scores, labels, above=0.0).sum(1).tolist() == [[1, 1]]


def test_accuracies_are_those_of_scikit_learn() -> None:
    """Labels are called 3, 5, 9; the last test sample has one that training lacks."""
    chance = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(40, 3, generator=chance), torch.randint(3, (40,), generator=chance)
    labels[-1] = -1
    found, by_class = accuracies(find_hits(scores[None], labels)[0], labels, torch.tensor([3, 5, 9]))
    guesses = scores.argmax(1)
    recalls = recall_score(labels[:-1], guesses[:-1], average=None)
    assert found["top1"] == pytest.approx(100 * (guesses == labels).float().mean().item(), abs=1e-4)
    assert found["per_class"] == pytest.approx(100 * balanced_accuracy_score(labels[:-1], guesses[:-1]))
    assert by_class == {name: pytest.approx(100 * each) for name, each in zip(("3", "5", "9"), recalls, strict=True)}
