"""CPC's loss beside loops over every place, and what it refuses."""

import math

import pytest
import torch

from fullrank import losses
from fullrank.errors import InputError


def test_every_place_finds_the_patch_below_among_all():
    torch.manual_seed(0)
    targets = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    predictions = {k: torch.randn(2, 4 - k, 3, 5, dtype=torch.float64) for k in (1, 3)}
    terms = losses.cpc(predictions, targets)
    everything = targets.reshape(-1, 5)
    for k, predicted in predictions.items():
        each = []
        for image in range(2):
            for row in range(4 - k):
                for column in range(3):
                    scores = everything @ predicted[image, row, column]
                    right = targets[image, row + k, column] @ predicted[image, row, column]
                    each.append(torch.logsumexp(scores, 0) - right)
        torch.testing.assert_close(terms[f"rows_{k}"], torch.stack(each).mean())
    torch.testing.assert_close(terms["loss"], terms["rows_1"] + terms["rows_3"])


def test_predictions_of_nothing_are_as_good_as_a_guess():
    terms = losses.cpc({2: torch.zeros(3, 2, 4, 6)}, torch.randn(3, 4, 4, 6))
    assert terms["loss"].item() == pytest.approx(math.log(3 * 4 * 4), rel=1e-6)


def test_half_precision_is_computed_in_float32():
    targets, predicted = torch.randn(2, 3, 3, 4).bfloat16(), torch.randn(2, 2, 3, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.cpc({1: predicted}, targets)["loss"]
    torch.testing.assert_close(found, losses.cpc({1: predicted.float()}, targets.float())["loss"], rtol=0, atol=0)


def test_predictions_of_other_rows_are_an_error():
    with pytest.raises(InputError, match=r"2 rows below have shape \(2, 3, 4, 6\), expected \(2, 2, 4, 6\)"):
        losses.cpc({2: torch.zeros(2, 3, 4, 6)}, torch.zeros(2, 4, 4, 6))
