"""Schedules: the published values, and what short and fractional runs get."""

import math

import pytest

from fullrank.errors import InputError
from fullrank.training.schedules import peak_lr, warmup_cosine, warmup_for


def curve(steps: int, **options) -> list[float]:
    return [warmup_cosine(step, **options) for step in range(steps)]


def test_published_run() -> None:
    # ImageNet at batch 2048 for 1000 epochs: base 0.2 becomes 1.6, the peak comes after 10 epochs.
    options = {"steps_per_epoch": 625, "epochs": 1000}
    assert peak_lr(0.2, 2048) == pytest.approx(1.6)
    assert warmup_cosine(0, **options) == 0.0
    assert warmup_cosine(3125, **options) == pytest.approx(0.5)
    assert warmup_cosine(6250, **options) == 1.0
    middle = (6250 + 625_000) // 2
    assert warmup_cosine(middle, **options) == pytest.approx((1 + 0.001) / 2)
    last = warmup_cosine(624_999, **options)
    assert 0.001 < last < 0.001 + 1e-9
    assert warmup_cosine(625_000, **options) == pytest.approx(0.001)
    assert warmup_cosine(700_000, **options) == pytest.approx(0.001)


def test_run_inside_its_warmup_rises_to_the_end() -> None:
    assert curve(30, steps_per_epoch=5, epochs=6) == [step / 50 for step in range(30)]


def test_run_as_long_as_its_warmup_ends_at_the_peak() -> None:
    assert curve(22, steps_per_epoch=2, epochs=10)[-2:] == [1.0, 1.0]


@pytest.mark.parametrize("epochs", [0.5, 3, 5, 99, 100, 400])
def test_suggested_warmup_lets_every_run_peak_and_anneal(epochs: float) -> None:
    warmup = warmup_for(epochs)
    assert warmup == (10 if epochs >= 100 else pytest.approx(epochs / 10))
    steps = math.ceil(epochs * 40)
    factors = curve(steps, steps_per_epoch=40, epochs=epochs, warmup_epochs=warmup)
    assert max(factors) > 0.98
    assert factors.index(max(factors)) == pytest.approx(steps * warmup / epochs, abs=1)
    assert factors[-1] < 0.01


def test_fractional_warmup_and_steps_per_epoch() -> None:
    options = {"steps_per_epoch": 2.5, "epochs": 4, "warmup_epochs": 0.6, "end_factor": 0.2}
    assert curve(2, **options) == [0.0, pytest.approx(1 / 1.5)]
    q = (1 + math.cos(math.pi * (2 - 1.5) / (10 - 1.5))) / 2
    assert warmup_cosine(2, **options) == pytest.approx(q + 0.2 * (1 - q))


def test_no_warmup_starts_at_the_peak() -> None:
    assert warmup_cosine(0, steps_per_epoch=3, epochs=4, warmup_epochs=0) == 1.0


@pytest.mark.parametrize("wrong", [{"step": -1}, {"steps_per_epoch": 0}, {"epochs": -1}, {"warmup_epochs": -2}])
def test_impossible_lengths(wrong: dict[str, int]) -> None:
    options = {"step": 0, "steps_per_epoch": 3, "epochs": 4} | wrong
    with pytest.raises(InputError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        warmup_cosine(options.pop("step"), **options)
