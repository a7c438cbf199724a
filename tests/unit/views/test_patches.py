"""Patches of CPC v2 and OBoW: their order, single channels, published sizes at other sizes."""

import dataclasses

import pytest
import torch

from fullrank.errors import InputError
from fullrank.views import Augment, View, cpcv2_views, obow_views
from fullrank.views.augment import draw_channel
from fullrank.views.puzzle import draw_corners

PLAIN = {"flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0}


def test_patches_row_by_row():
    view = View(260, grid=6, piece=80, shuffle=False)
    corners = draw_corners(view, 3)
    expected = [[36 * row, 36 * column] for row in range(6) for column in range(6)]
    assert corners.tolist() == [expected] * 3
    some = draw_corners(dataclasses.replace(view, pieces=9), 3)
    assert all(rows == sorted(rows) and len(rows) == 9 for rows in some.tolist())


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_one_channel_is_kept_and_the_others_are_their_means(channels):
    view = View(8, **PLAIN, single_channel=0.6)
    images = torch.rand(400, channels, 8, 8)
    mean, std = (0.4,) * channels, (0.2,) * channels
    torch.manual_seed(0)
    found = Augment((view,), mean, std)(images)[0]
    torch.manual_seed(0)
    whole = Augment((dataclasses.replace(view, single_channel=0.0),), mean, std)(images)[0]
    kept = (found == whole).all((2, 3))
    assert (kept | (found == 0).all((2, 3))).all()
    if channels > 1:
        alone = kept.sum(1) == 1
        assert (alone | kept.all(1)).all()
        assert alone.float().mean().item() == pytest.approx(0.6, abs=0.08)
        assert (kept[alone].float().mean(0) - 1 / channels).abs().max() < 0.1
    else:
        assert kept.all()


def test_keeping_all_channels_draws_nothing():
    before = torch.get_rng_state()
    assert torch.equal(draw_channel(0.0, 4), torch.full((4,), -1.0))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="single_channel"):
        View(8, single_channel=1.5)


def test_published_sizes():
    (grid,) = cpcv2_views()
    assert (grid.size, grid.grid, grid.piece, grid.shift) == (260, 6, 80, 0)
    whole, crops, pieces = obow_views()
    assert (whole.size, whole.scale, crops.size, crops.count) == (224, (1.0, 1.0), 160, 2)
    assert (pieces.size, pieces.piece, pieces.shift, pieces.pieces, pieces.apart) == (256, 96, 24, 5, False)


@pytest.mark.parametrize("size", [8, 16, 32, 48, 64, 96, 128, 224])
def test_smaller_sizes(size):
    images = torch.rand(2, 3, 40, 50)
    for recipe in (cpcv2_views(size), obow_views(size)):
        made = Augment(recipe, (0.5,) * 3, (0.5,) * 3)(images)
        expected = [(2, *view.shape(3)) for view in recipe for _ in range(view.count)]
        assert [tuple(view.shape) for view in made] == expected
