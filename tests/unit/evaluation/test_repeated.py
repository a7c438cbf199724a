"""Means and spread over seeds."""

import dataclasses

import pytest

from fullrank.errors import InputError
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.repeated import mean_of, over_seeds


def judged(seed):
    rate = 0.1 if seed < 5 else 0.3
    return Result(
        "linear",
        {"top1": 10.0 + 3 * seed},
        n_train=7 + seed,
        n_test=5,
        classes=2,
        settings={"seed": seed, "rate": rate, "epochs": 3},
        details={"rate=0.1": {"loss": float(seed)}},
        by_class={"0": float(seed), "1": 2.0 * seed},
        notes=("said always", f"said by {seed}"),
    )


def test_scores_are_means_with_their_spread():
    found = over_seeds(judged, 4, 3)
    assert found.scores == {"top1": 25.0, "top1_std": 3.0}
    assert found.details == {
        "rate=0.1": {"loss": 5.0, "loss_std": 1.0},
        "seed=4": {"top1": 22.0},
        "seed=5": {"top1": 25.0},
        "seed=6": {"top1": 28.0},
    }
    assert found.settings == {"seed": 4, "seeds": 3, "rate": [0.1, 0.3, 0.3], "epochs": 3}
    assert found.by_class == {"0": 5.0, "1": 10.0}
    assert (found.n_train, found.n_test) == (13, 5)
    assert found.notes == ("said always", "said by 4", "said by 5", "said by 6")


def test_every_variant_keeps_what_each_seed_gave():
    def two(seed):
        details = {"finetuned": {"top1": 10.0 + 3 * seed}, "scratch": {"top1": float(seed)}}
        return dataclasses.replace(judged(seed), details=details)

    details = over_seeds(two, 4, 2).details
    assert details["scratch"]["top1"] == 4.5
    assert [details[f"scratch, seed={seed}"]["top1"] for seed in (4, 5)] == [4.0, 5.0]


def test_one_seed_is_its_own_result():
    found = over_seeds(judged, 4, 1)
    assert (found.scores, found.details) == (judged(4).scores, judged(4).details)
    assert found.settings["seeds"] == 1
    with pytest.raises(InputError, match="seeds is 0"):
        over_seeds(judged, 4, 0)


def test_scores_that_some_lack_are_left_out():
    rows = [{"box_ap": 10.0, "other": 1.0}, {"box_ap": 13.0}, {"box_ap": 16.0, "other": 2.0}]
    assert mean_of(rows, "_std") == {"box_ap": 13.0, "box_ap_std": 3.0}
    assert mean_of(rows) == {"box_ap": 13.0}
    assert mean_of(rows[:1], "_std") == rows[0]
