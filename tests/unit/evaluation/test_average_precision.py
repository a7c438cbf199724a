"""Average precision by hand, and what is refused; the SVM on classes that a plane separates."""

import numpy as np
import pytest

from fullrank.errors import InputError
from fullrank.evaluation.average_precision import average_precision, precision_recall
from fullrank.evaluation.svm import cost_list, svm_protocol

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
TARGETS = np.array([0, 1, -1, 1, 0])


def test_by_hand():
    precision, recall = precision_recall(SCORES, TARGETS)
    assert precision.tolist() == [0, 1 / 2, 2 / 3, 2 / 4]
    assert recall.tolist() == [0, 1 / 2, 1, 1]
    # The envelope is 2/3 at every recall.
    assert average_precision(SCORES, TARGETS) == pytest.approx(2 / 3)
    assert average_precision(SCORES, TARGETS, rule="11-point") == pytest.approx(2 / 3)
    assert average_precision(SCORES, np.array([1, 0, -1, 0, 1])) == pytest.approx((1 + 1 / 2) / 2)


def test_a_recall_of_exactly_three_tenths_misses_its_point():
    ten = np.array([1, 1, 1] + [0] * 30 + [1] * 7)
    # Precision 1 up to recall 0.3; from the next found one on it is at most 10 / 40.
    assert average_precision(-np.arange(40.0), ten, rule="11-point") == pytest.approx((3 * 1 + 8 * 10 / 40) / 11)


@pytest.mark.parametrize(
    ("scores", "targets", "words"),
    [
        (SCORES, TARGETS[:4], "expected (n,) each"),
        (SCORES, TARGETS * 2, "targets 1, 0 or -1"),
        (SCORES, np.zeros(5, int), "none of 5 targets is present"),
    ],
)
def test_what_is_refused(scores, targets, words):
    with pytest.raises(InputError) as error:
        average_precision(scores, targets)
    assert words in str(error.value)


def test_another_rule_is_refused():
    with pytest.raises(InputError, match=r"unknown rule 'aera': did you mean 'area'"):
        average_precision(SCORES, TARGETS, rule="aera")


def test_costs_end_with_powers():
    assert cost_list([1.0], (1, 4)) == [1.0, 0.5, 0.25, 0.125]
    assert cost_list([1.0], (1, 4), base=-1.0) == [1.0]


def test_classes_that_a_plane_separates_are_found():
    chance = np.random.default_rng(0)
    features = chance.normal(size=(80, 5))
    targets = (features[:, :2] > 0).astype(int)
    result = svm_protocol(features[:60], targets[:60], features[60:], targets[60:], costs=[0.1, 100.0])
    assert (result.average_precision > 0.95).all()
    with pytest.raises(InputError, match="3 folds need at least 3"):
        svm_protocol(features[:4], targets[:4], features, targets)
