"""From pictures to views: the same for any number of processes, workers and placements."""

import numpy as np
import pytest
import torch

from fullrank.data import open_source
from fullrank.data.statistics import measure_pixels
from fullrank.training.batches import Batches, Plan
from fullrank.training.feed import MemoryFeed, WorkerFeed, collate_crops
from fullrank.views import Augment, View

RECIPE = (View(size=24, blur=0.5), View(size=24, solarize=0.5))
PLAN = Plan(samples=40, batch_size=16, batches=4, seed=1)


def make(kind, workers=0):
    source = open_source("shapes:N=40,size=32")
    pixels = measure_pixels(source)
    augment = Augment(RECIPE, pixels.mean, pixels.std)
    if kind == "memory":
        return MemoryFeed(torch.from_numpy(source.images()).permute(0, 3, 1, 2), augment)
    return WorkerFeed(source, pixels, RECIPE, augment, workers=workers, seed=1)


def all_views(feed, **where):
    found = []
    for number, loaded in enumerate(feed.loader(Batches(PLAN, **where))):
        torch.manual_seed(number)
        found.append(feed.views(loaded))
    return found


@pytest.mark.parametrize("kind", ["memory", "workers"])
def test_processes_see_together_what_one_sees(kind):
    whole = all_views(make(kind))
    parts = [all_views(make(kind), rank=rank, world_size=2) for rank in range(2)]
    assert len(whole) == 4
    for one, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.index for share in shares]), one.index)
        for view, *pieces in zip(one.views, *(share.views for share in shares), strict=True):
            # Products of matrices round differently in batches of another size; the draws are the same.
            torch.testing.assert_close(torch.cat(pieces), view, rtol=0, atol=1e-5)


def test_workers_change_nothing():
    for alone, helped in zip(all_views(make("workers")), all_views(make("workers", workers=2)), strict=True):
        for one, other in zip(alone.views, helped.views, strict=True):
            assert torch.equal(one, other)


def test_crops_are_stacked_by_view():
    generator = torch.Generator().manual_seed(0)
    crops = [
        [torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8) for side in (8, 5)]
        for _ in range(4)
    ]
    crops[2][0] = crops[2][0][None].contiguous(memory_format=torch.channels_last)[0]
    batches, index = collate_crops([(views, 10 + row) for row, views in enumerate(crops)])
    assert index.tolist() == [10, 11, 12, 13]
    for view, batch in enumerate(batches):
        assert torch.equal(batch, torch.stack([views[view] for views in crops]))


def test_a_batch_is_made_of_the_pictures_it_names():
    source = open_source("shapes:N=40,size=32")
    feed = make("memory")
    feed.augment = Augment(
        (View(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=0.0),),
        (0.0,) * 3,
        (1.0,) * 3,
    )
    batch = feed.views(next(iter(feed.loader(Batches(PLAN)))))
    for image, index in zip(batch.views[0], batch.index, strict=True):
        expected = torch.from_numpy(source.read(int(index)).astype(np.float32) / 255).permute(2, 0, 1)
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)
