"""Masks: what holds for any draws, and what is refused."""

import math

import numpy as np
import pytest
import torch

from fullrank.errors import InputError
from fullrank.views.masks import (
    Draws,
    MultiBlock,
    block_size,
    cut_to_shortest,
    place_blocks,
    random_masks,
    region,
)

SMALL_GRID = {"target": (3, 3), "context": (7, 7), "min_keep": 5}


def test_draws_are_those_of_the_generator():
    torch.manual_seed(4)
    expected = torch.rand(600, dtype=torch.float64)
    torch.manual_seed(4)
    draws = Draws()
    found = [draws.uniform(0, 1) for _ in range(300)] + [draws.below(10) for _ in range(300)]
    np.testing.assert_array_equal(found[:300], expected[:300])
    np.testing.assert_array_equal(found[300:], (10 * expected[300:]).long())


def test_draws_of_a_generator_leave_the_default_one_alone():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    one, two = (Draws(torch.Generator().manual_seed(7)) for _ in range(2))
    assert [one.below(100) for _ in range(20)] == [two.below(100) for _ in range(20)]
    assert torch.equal(torch.get_rng_state(), before)
    assert 3.0 >= one.uniform(3, 2) >= 2.0, "a range may run backwards"


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(20, 0.9, 1), (100, 0.9, 9), (196, 0.75, 49), (9, 0.4, 5)])
def test_kept_patches_are_counted_in_floating_point(patches, ratio, kept):
    noise = torch.rand(3, patches, generator=torch.Generator().manual_seed(0))
    keep, hidden, places = random_masks(noise, ratio)
    assert keep.shape == (3, kept)
    assert (noise.gather(1, keep).diff(dim=1) > 0).all(), "in the order of their noise"
    torch.testing.assert_close(places.gather(1, torch.cat([keep, hidden], 1)), torch.arange(patches).expand(3, -1))


def test_a_region_is_never_larger_than_its_goal():
    for grid in ((8, 8), (5, 9), (14, 14)):
        goal = round(0.383 * math.prod(grid))
        sizes = [region(grid, goal, smallest=4, draws=Draws()).sum() for _ in range(200)]
        assert max(sizes) <= goal
        assert np.mean(sizes) > 0.8 * goal


def test_contexts_keep_nothing_of_targets_unless_they_may():
    for overlap in (False, True):
        contexts, targets = place_blocks(50, (8, 8), **SMALL_GRID, contexts=2, overlap=overlap, draws=Draws())
        pairs = [(one, np.concatenate(two)) for ones, two in zip(contexts, targets, strict=True) for one in ones]
        assert any(np.intersect1d(context, hidden).size for context, hidden in pairs) == overlap
        assert min(len(context) for picture in contexts for context in picture) > SMALL_GRID["min_keep"]
        assert all(len(target) == 9 for picture in targets for target in picture)


def test_a_context_without_room_may_overlap_the_last_targets():
    sizes = {"target": (6, 6), "context": (7, 7), "targets": 4, "min_keep": 16}
    contexts, targets = place_blocks(20, (8, 8), **sizes, draws=Draws())
    for (context,), (first, *others) in zip(contexts, targets, strict=True):
        assert len(context) > 16
        assert set(context) & set(np.concatenate(others)) or not set(context) & set(first)


def test_blocks_are_cut_to_the_shortest_by_their_first_patches():
    blocks = [[np.array([1, 2, 3]), np.array([4, 5])], [np.array([0, 7, 8, 9]), np.array([3, 6, 7])]]
    assert cut_to_shortest(blocks).tolist() == [[[1, 2], [4, 5]], [[0, 7], [3, 6]]]


def test_endless_searches_are_refused():
    """The published sizes on a grid of 8 x 8: a target has 9 patches there and can never have more than 10."""
    assert math.prod(block_size(0.0, (8, 8), (0.15, 0.2), (0.75, 1.5))) == 9
    with pytest.raises(InputError, match="min_keep 10 on a grid of 8 x 8 patches: blocks may have 9"):
        MultiBlock(min_keep=10).check((8, 8))
    with pytest.raises(InputError, match="min_keep 9"):
        place_blocks(2, (8, 8), target=(3, 3), context=(7, 7), min_keep=9, draws=Draws())
    with pytest.raises(InputError, match="blocks may have 0"):
        MultiBlock().check((2, 2))


def test_small_grids_ask_for_fewer_patches_by_themselves():
    MultiBlock().check((8, 8))
    contexts, targets = MultiBlock().draw(5, (8, 8), step=3)
    assert contexts.shape[:2] == (5, 1)
    assert targets.shape[:2] == (5, 4)
    assert MultiBlock().sizes((14, 14), 0.5, 0.5)["min_keep"] == 10
    assert MultiBlock().sizes((8, 8), 0.0, 0.0)["min_keep"] == 8
