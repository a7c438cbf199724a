"""From pictures to views: the same for any number of processes, workers and placements."""

import numpy as np
import pytest
import torch

from fullrank.data import open_source
from fullrank.data.statistics import measure_pixels
from fullrank.training.batches import Batches, Plan
from fullrank.training.feed import CaptionFeed, MemoryFeed, WorkerFeed, collate_crops
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


OWNERS = torch.tensor([row for row in range(40) for _ in range(1 + row % 3)])
TOKENS = 1 + torch.arange(len(OWNERS), dtype=torch.int32)[:, None].expand(-1, 4)
PAIRS = Plan(samples=len(OWNERS), batch_size=16, batches=8, seed=1)


def pairs_of(kind, workers=0, **where):
    feed = CaptionFeed(make(kind, workers), OWNERS, TOKENS)
    found = []
    for number, loaded in enumerate(feed.loader(Batches(PAIRS, **where))):
        torch.manual_seed(number)
        found.append(feed.views(loaded))
    return found


@pytest.mark.parametrize("kind", ["memory", "workers"])
def test_an_epoch_has_every_pair_of_picture_and_caption_once(kind):
    batches = pairs_of(kind)[: PAIRS.batches_per_epoch]
    numbers = torch.cat([batch.views[-1][:, 0] for batch in batches]) - 1
    assert batches[0].views[-1].dtype == torch.long
    assert len(numbers.unique()) == len(numbers) == PAIRS.batches_per_epoch * 16
    assert torch.equal(torch.cat([batch.index for batch in batches]), OWNERS[numbers])


@pytest.mark.parametrize("kind", ["memory", "workers"])
def test_pairs_are_the_same_on_any_number_of_processes_and_when_resumed(kind):
    whole = pairs_of(kind)
    parts = [pairs_of(kind, rank=rank, world_size=2) for rank in range(2)]
    for one, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.views[-1] for share in shares]), one.views[-1])
        assert torch.equal(torch.cat([share.index for share in shares]), one.index)
    resumed = pairs_of(kind, start=3)
    assert [batch.views[-1].tolist() for batch in resumed] == [batch.views[-1].tolist() for batch in whole[3:]]


@pytest.mark.parametrize("kind", ["memory", "workers"])
def test_pictures_beside_captions_are_those_without(kind):
    feed = CaptionFeed(make(kind), torch.arange(40), torch.ones(40, 2, dtype=torch.int32))
    for number, (plain, loaded) in enumerate(zip(all_views(make(kind)), feed.loader(Batches(PLAN)), strict=True)):
        torch.manual_seed(number)
        beside = feed.views(loaded)
        assert torch.equal(beside.index, plain.index)
        assert all(torch.equal(one, other) for one, other in zip(beside.views, plain.views, strict=False))


def test_workers_change_no_pair():
    for alone, helped in zip(pairs_of("workers"), pairs_of("workers", workers=2), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(alone.views, helped.views, strict=True))


def test_a_picture_in_place_of_an_unreadable_one_brings_its_own_caption():
    feed = CaptionFeed(make("memory"), OWNERS, TOKENS)
    pairs = torch.tensor([3, 4, 5])
    index = OWNERS[pairs].clone()
    index[1] = 20
    batch = feed.views((index, pairs))
    assert [int(OWNERS[caption - 1]) for caption in batch.views[-1][:, 0]] == index.tolist()
    assert batch.views[-1][[0, 2], 0].tolist() == [4, 6]
