"""The cheap measures of a batch equal the exact ones, and warnings come when, and only when, a collapse begins."""

import math

import pytest
import torch

from fullrank import collapse
from fullrank.collapse import live_measures, warn
from fullrank.collapse.live import COLUMNS, ROWS
from tests.unit.collapse.planted import gaussian, low_rank, power_law

SETTINGS = {"invariance": 25, "variance": 25, "covariance": 1, "learning_rate": 0.3, "warmup_epochs": 10}

# Live measurements of Z in training runs of 400 to 1000 steps (a convolutional network on 8 x 8 digits, a perceptron on
# 64 numbers, a small ResNet on CIFAR-10; width 512, batch 256, AdamW): effective rank, std and correlation at the start
# and after a tenth, a third and all of the steps.
HEALTHY_RUNS = [
    [(287.6, 0.335, 0.09), (126.2, 0.384, 0.22), (93.0, 0.465, 0.17), (91.5, 0.515, 0.15)],
    [(293.6, 0.338, 0.08), (173.6, 0.600, 0.10), (193.3, 0.692, 0.08), (208.0, 0.740, 0.07)],
    [(239.9, 0.337, 0.15), (187.1, 0.301, 0.22), (115.3, 0.348, 0.21), (102.4, 0.378, 0.18)],
]
WITHOUT_VARIANCE = [(287.6, 0.335, 0.09), (125.8, 0.039, 0.38), (217.0, 0.0074, 0.13), (233.8, 0.0055, 0.10)]
WITHOUT_COVARIANCE = [(287.6, 0.335, 0.09), (14.3, 1.062, 0.96), (8.4, 1.058, 1.00), (7.5, 1.039, 1.00)]


def history(run: list[tuple[float, float, float]], name: str = "Z") -> list[dict[str, object]]:
    columns = (f"{name}_effective_rank", f"{name}_std", f"{name}_correlation")
    return [{"step": 100 * index, **dict(zip(columns, row, strict=True))} for index, row in enumerate(run)]


@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (ROWS, COLUMNS)])
@pytest.mark.parametrize("plant", [gaussian, power_law(3.0), low_rank(2, 1e-3), low_rank(1)])
def test_measures_of_a_batch_are_exact_while_it_is_small(plant, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    vectors = plant(*shape) + 5
    live = live_measures(vectors.clone().requires_grad_())
    assert live["effective_rank"] == pytest.approx(float(collapse.effective_rank(vectors)), rel=1e-4)
    assert live["std"] == pytest.approx(float(collapse.standard_deviation(vectors).mean()), rel=1e-9)
    assert live["correlation"] == pytest.approx(float(collapse.absolute_correlation(vectors)), rel=1e-9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert live_measures(vectors) == live


def test_measures_of_a_large_batch_are_those_of_its_first_rows_and_some_columns() -> None:
    torch.manual_seed(0)
    vectors = (low_rank(20, 0.3)(ROWS, 3 * COLUMNS - 5)).float()
    live = live_measures(torch.cat([vectors, 100 * torch.ones_like(vectors)]))
    assert live["effective_rank"] == pytest.approx(float(collapse.effective_rank(vectors)), rel=1e-4)
    assert live["correlation"] == pytest.approx(float(collapse.absolute_correlation(vectors)), rel=0.02)


def test_measures_of_what_has_none() -> None:
    for vectors in (torch.tensor([[1.0, math.nan], [0, 0]]), torch.ones(1, 3)):
        assert all(math.isnan(value) for value in live_measures(vectors).values())
    assert live_measures(torch.ones(4, 3)) == {"effective_rank": 0, "std": 0, "correlation": 0}
    one_moves = torch.tensor([[1.0, 0, 0], [2, 0, 0], [4, 0, 0]])
    assert live_measures(one_moves)["correlation"] == 0


@pytest.mark.parametrize("name", ["Y", "Z"])
@pytest.mark.parametrize("run", HEALTHY_RUNS)
def test_a_healthy_course_gives_no_warning(run: list[tuple[float, float, float]], name: str) -> None:
    rows = history(run, name)
    assert [warn(rows[: length + 1], SETTINGS) for length in range(len(rows))] == [[]] * len(rows)


def test_the_course_without_variance_term() -> None:
    rows, settings = history(WITHOUT_VARIANCE), SETTINGS | {"variance": 0}
    assert warn(rows[:1], settings) == []
    (text,) = warn(rows[:2], settings)
    assert text.startswith("Z shrinks: its mean standard deviation is 0.039 at step 100, 0.34 at step 0.")
    assert text.endswith(
        "Complete collapse begins: the variance coefficient is 0, so nothing holds the vectors apart: set it to 25."
    )
    assert warn(rows[:3], settings) == []  # said once


def test_the_course_without_covariance_term() -> None:
    rows, settings = history(WITHOUT_COVARIANCE, "Y"), SETTINGS | {"covariance": 0}
    repeated, lost = warn(rows[:2], settings)
    assert "the dimensions of Y repeat one another: mean absolute correlation 0.96 at step 100" in repeated
    assert "Dimensional collapse begins: the covariance coefficient is 0" in repeated
    assert lost.startswith("Y loses its directions: effective rank 14.3 at step 100, 288 at its best.")
    assert warn(rows[:3], settings) == []


def test_a_collapse_that_comes_back_is_told_again() -> None:
    rows = history([*WITHOUT_VARIANCE[:2], *HEALTHY_RUNS[0][2:], WITHOUT_VARIANCE[2]])
    counts = [len(warn(rows[: length + 1], SETTINGS)) for length in range(len(rows))]
    assert counts == [0, 1, 0, 0, 1]


def test_the_settings_decide_the_advice() -> None:
    rows = history(WITHOUT_VARIANCE[:2])
    (text,) = warn(rows, SETTINGS | {"precision": "16-mixed"})
    assert (
        "lower the learning rate, now 0.3, or lengthen the warm-up, now 10 epochs; only if that does not help" in text
    )
    assert "Train in bf16 or float32" in text


def test_numbers_that_are_no_numbers() -> None:
    rows = history([HEALTHY_RUNS[0][0], (math.nan, math.nan, math.nan)])
    (text,) = warn(rows, SETTINGS)
    assert text == (
        "Z holds NaN or infinite values at step 100: lower the learning rate, now 0.3, or lengthen the warm-up, now 10 "
        "epochs."
    )


def test_measurements_with_gaps() -> None:
    rows = [{"step": 0, "loss": 1.0}, {"step": 1, "Z_std": ""}, {"step": 2, "Z_std": "0.5"}, {"step": 3, "Z_std": None}]
    assert warn([], SETTINGS) == []
    assert [warn(rows[: length + 1], {}) for length in range(4)] == [[]] * 4
    (text,) = warn([*rows, {"step": 4, "Z_std": 0.01}], {})
    assert "0.01 at step 4, 0.5 at step 2" in text
