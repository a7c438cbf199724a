"""Schedules: the published values, and what short and fractional runs get."""

import math

import pytest

from fullrank.errors import InputError
from fullrank.schedules import Progress, Schedule


def curve(steps: int, per_epoch: float, schedule: Schedule, count: int | None = None) -> list[float]:
    return [schedule(Progress(step, steps, per_epoch)) for step in range(count or steps)]


def test_published_run() -> None:
    # ImageNet at batch 2048 for 1000 epochs: the peak comes after 10 epochs.
    schedule = Schedule()

    def at(step: int) -> float:
        return schedule(Progress(step, 625_000, 625))

    assert at(0) == 0.0
    assert at(3125) == pytest.approx(0.5)
    assert at(6250) == 1.0
    assert at((6250 + 625_000) // 2) == pytest.approx((1 + 0.001) / 2)
    assert 0.001 < at(624_999) < 0.001 + 1e-9
    assert at(625_000) == at(700_000) == pytest.approx(0.001)


def test_run_inside_its_warmup_rises_to_the_end() -> None:
    assert curve(30, 5, Schedule()) == [step / 50 for step in range(30)]


def test_run_as_long_as_its_warmup_ends_at_the_peak() -> None:
    assert curve(20, 2, Schedule(), count=22)[-2:] == [1.0, 1.0]


def test_fractional_warmup_and_steps_per_epoch() -> None:
    factors = curve(10, 2.5, Schedule(0.6, end_factor=0.2))
    assert factors[:2] == [0.0, pytest.approx(1 / 1.5)]
    q = (1 + math.cos(math.pi * (2 - 1.5) / (10 - 1.5))) / 2
    assert factors[2] == pytest.approx(q + 0.2 * (1 - q))


def test_no_warmup_starts_at_the_peak() -> None:
    assert curve(12, 3, Schedule(0))[0] == 1.0


def test_milestones_are_shares_of_the_run() -> None:
    factors = curve(10, 2, Schedule(0, milestones=(0.6, 0.8), gamma=0.1))
    assert factors == [1.0] * 6 + [0.1] * 2 + [pytest.approx(0.01)] * 2


def test_rates_by_epoch_stay_inside_one() -> None:
    factors = curve(12, 3, Schedule(0, per_epoch=True))
    assert all(factors[step] == factors[step - step % 3] for step in range(12))
    assert len(set(factors)) == 4


def test_rates_by_epoch_warm_up_by_step() -> None:
    factors = curve(12, 4, Schedule(0.5, per_epoch=True))
    assert factors[:4] == [0.0, 0.5, 1.0, 1.0]  # and not 0 for an epoch
    assert factors[4:8] == [pytest.approx((1 + 0.001 + 0.999 * math.cos(math.pi * 2 / 10)) / 2)] * 4
    longer = curve(12, 4, Schedule(1.5, per_epoch=True))
    assert longer[:7] == [pytest.approx(step / 6) for step in range(7)]
    assert longer[6] == longer[7] == 1.0


@pytest.mark.parametrize("wrong", [{"warmup_epochs": -2}, {"end_factor": -0.1}, {"stretch": -1}])
def test_impossible_schedules(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        Schedule(**wrong)
