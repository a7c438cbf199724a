"""From the data that a user names to a feed of views: opened, checked, measured, placed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from rich.console import Console
from torch import Tensor

from fullrank import methods
from fullrank.data import open_source
from fullrank.data.check import SourceCheck, check_source
from fullrank.data.loading import choose_placement, load_in_memory
from fullrank.data.source import Source
from fullrank.data.statistics import Pixels
from fullrank.data.streams import Stream
from fullrank.errors import InputError
from fullrank.methods import DataFacts
from fullrank.runs.build import facts_of
from fullrank.training.feed import Feed, MemoryFeed, StreamFeed, WorkerFeed
from fullrank.views import Augment, Recipe, View

# Sizes (pixels a side) that the network may see when the user names none.
SMALLEST_IMAGE, LARGEST_IMAGE = 32, 224
# Samples of a stream that are looked at before training.
STREAM_LOOK = 1000


@dataclass
class Prepared:
    """Data ready for training."""

    source: Source
    pixels: Pixels
    image_size: int
    recipe: Recipe
    feed: Feed
    check: SourceCheck
    placement: str
    usable: int  # samples that the feed draws from
    labels: Tensor | None  # (usable,), where they are known

    def input(self) -> dict[str, Any]:
        """What the network takes: all that is needed to build it again and to embed other pictures."""
        return {
            "channels": self.pixels.channels,
            "image_size": self.image_size,
            "pixels": self.pixels.to_dict(),
            "samples": self.usable,
            "classes": len(self.source.classes),
        }

    @property
    def facts(self) -> DataFacts:
        """The same, as a method takes it."""
        return facts_of(self.input())


def prepare(settings: SimpleNamespace, console: Console) -> Prepared:
    """Open, check, measure and place the data. Raises `InputError` before anything is written."""
    opened = open_source(settings.data, settings.split, settings.include)
    source = opened.first(STREAM_LOOK) if isinstance(opened, Stream) else opened
    check = check_source(source, batch_size=settings.batch_size)
    if check.pixels is None or check.problems:
        raise InputError(f"{source.name}: {'; '.join(check.problems)}")
    for warning in check.warnings:
        console.print(f"data: {warning}", markup=False)
    pixels = check.pixels
    image_size = settings.image_size or default_image_size(check)
    recipe = view_recipe(settings, image_size)
    augment = Augment(recipe, pixels.mean, pixels.std)
    forced = None if settings.placement == "auto" else settings.placement
    placement, reason = choose_placement(opened, pixels, image_size, forced=forced)
    count = "a stream" if isinstance(opened, Stream) else f"{len(opened):,} pictures"
    height, width = check.sizes[1]
    size = f"{height} x {width}" if pixels.size else f"many sizes, usually {height} x {width}"
    kind = f"{pixels.channels} channels of {pixels.depth}"
    console.print(f"data: {opened.name}, {count} of {size}, {kind}", markup=False)
    console.print(f"data: normalisation {pixels.normalisation}", markup=False)
    console.print(f"data: in {placement}: {reason}", markup=False)
    feed, usable, kept = place(opened, pixels, image_size, recipe, augment, placement, settings)
    if settings.batch_size > usable:
        raise InputError(f"batch_size {settings.batch_size} is larger than the {usable} usable images: lower it")
    labels = None if isinstance(opened, Stream) or opened.labels is None else torch.from_numpy(opened.labels[kept])
    return Prepared(source, pixels, image_size, recipe, feed, check, placement, usable, labels)


def place(
    opened: Source | Stream,
    pixels: Pixels,
    image_size: int,
    recipe: Recipe,
    augment: Augment,
    placement: str,
    settings: SimpleNamespace,
) -> tuple[Feed, int, Any]:
    """The feed for the chosen placement, how many samples an epoch draws from, and which of the source they are."""
    workers = settings.workers if settings.workers is not None else default_workers(settings)
    if isinstance(opened, Stream):
        if settings.steps is None:
            raise InputError(f"{opened.name} is a stream of unknown length: give --steps in place of epochs")
        if methods.get(settings.method).remembers_samples:
            raise InputError(f"{settings.method} remembers every sample, and {opened.name} is a stream: store it first")
        seen = settings.steps * settings.batch_size
        return StreamFeed(opened, pixels, recipe, augment, workers=workers), seen, slice(None)
    if placement == "memory":
        images, kept = load_in_memory(opened, pixels, image_size)
        return MemoryFeed(images, augment), len(kept), kept
    feed = WorkerFeed(opened, pixels, recipe, augment, workers=workers, seed=settings.seed)
    return feed, len(opened), slice(None)


def default_workers(settings: SimpleNamespace) -> int:
    """One decoding process a core and device, at most 16."""
    devices = settings.devices if isinstance(settings.devices, int) else 1
    return max(1, min(16, cpu_count() // max(1, devices)))


def default_image_size(check: SourceCheck) -> int:
    """The usual short side of the pictures, between 32 and 224 pixels."""
    return int(np.clip(min(check.sizes[1]), SMALLEST_IMAGE, LARGEST_IMAGE))


def view_recipe(settings: SimpleNamespace, image_size: int) -> Recipe:
    """The method's published views at this size, with what the user changed."""
    if settings.views:
        recipe = tuple(View.from_dict({"size": image_size} | view) for view in settings.views)
    else:
        recipe = methods.get(settings.method).views(image_size)
    if settings.crop_scale is not None:
        recipe = tuple(dataclasses.replace(view, scale=(settings.crop_scale, view.scale[1])) for view in recipe)
    return recipe
