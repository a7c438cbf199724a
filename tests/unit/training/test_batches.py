"""Which samples make up a batch: every epoch once, the same when resumed, the same on any number of processes."""

from itertools import chain

import pytest

from fullrank.training.batches import Batches, Plan, mix

PLAN = Plan(samples=53, batch_size=8, batches=20, seed=3)


def rows(batches):
    return [[row for row, _ in batch] for batch in batches]


def test_an_epoch_holds_every_sample_at_most_once():
    epoch = list(chain(*rows(Batches(PLAN))[: PLAN.batches_per_epoch]))
    assert len(epoch) == len(set(epoch)) == 48
    assert set(epoch) <= set(range(53))


def test_epochs_are_ordered_differently():
    all_rows = rows(Batches(PLAN))
    assert all_rows[: PLAN.batches_per_epoch] != all_rows[PLAN.batches_per_epoch : 2 * PLAN.batches_per_epoch]


@pytest.mark.parametrize("start", [0, 1, 5, 6, 7, 19, 20])
def test_a_resumed_run_sees_the_rest(start):
    assert list(Batches(PLAN, start=start)) == list(Batches(PLAN))[start:]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_see_what_one_sees(world):
    parts = [list(Batches(PLAN, rank=rank, world_size=world)) for rank in range(world)]
    joint = [list(chain(*batch)) for batch in zip(*parts, strict=True)]
    assert joint == list(Batches(PLAN))


def test_every_draw_has_a_number_of_its_own():
    numbers = [number for batch in Batches(PLAN) for _, number in batch]
    assert len(set(numbers)) == len(numbers) == 160


def test_the_length_is_that_of_the_whole_run():
    assert len(Batches(PLAN, start=7)) == 20


def test_seeds_of_neighbours_share_nothing():
    seeds = {mix(seed, step) for seed in range(50) for step in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = [bin(mix(7, step) ^ mix(7, step + 1)).count("1") for step in range(200)]
    assert 25 < sum(bits) / len(bits) < 38  # half of 63
