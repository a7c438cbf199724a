"""From the data that a user names to a feed of views: opened, checked, measured, placed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
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
from fullrank.data.source import Chosen, Source
from fullrank.data.statistics import Pixels
from fullrank.data.streams import Stream
from fullrank.data.tokens import Tokenizer, model_tokenizer, train_tokenizer
from fullrank.errors import InputError
from fullrank.methods import DataFacts
from fullrank.networks.text import HUB, token_kind
from fullrank.report.wording import counted
from fullrank.runs.build import facts_of, text_encoder_of
from fullrank.runs.folder import TOKENIZER
from fullrank.training.feed import CaptionFeed, Feed, MemoryFeed, StreamFeed, WorkerFeed
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
    usable: int  # pictures that the feed draws from
    items: int  # samples of an epoch: the pictures, or their pairs with captions
    labels: Tensor | None  # (usable,), where they are known
    tokenizer: Tokenizer | None = None  # of the captions

    def input(self) -> dict[str, Any]:
        """What the network takes: all that is needed to build it again and to embed other pictures."""
        return {
            "channels": self.pixels.channels,
            "image_size": self.image_size,
            "pixels": self.pixels.to_dict(),
            "samples": self.usable,
            "classes": len(self.source.classes),
            "vocabulary": self.tokenizer.vocabulary if self.tokenizer else 0,
        }

    @property
    def facts(self) -> DataFacts:
        """The same, as a method takes it."""
        return facts_of(self.input())


def prepare(settings: SimpleNamespace, console: Console) -> Prepared:
    """Open, check, measure and place the data. Raises `InputError` before anything is written."""
    text = text_encoder_of(settings)
    if settings.captions is not None and text is None:
        raise InputError(f"captions are of no use to {settings.method} alone: add --backbone2 gru, or leave them out")
    opened = open_source(settings.data, settings.split, settings.include, settings.captions, samples=settings.samples)
    if text:
        opened = captioned(opened, console)
    source = opened.first(STREAM_LOOK) if isinstance(opened, Stream) else opened
    check = check_source(source, batch_size=settings.batch_size)
    if check.pixels is None or check.problems:
        raise InputError(f"{source.name}: {'; '.join(check.problems)}")
    for warning in check.warnings:
        console.print(f"data: {warning}", markup=False)
    pixels = check.pixels
    image_size = settings.image_size or default_image_size(check)
    recipe = view_recipe(settings, image_size)
    if not text or sum(view.count for view in recipe) > 1:
        methods.get(settings.method).check_views(recipe)
    if text:
        recipe = (dataclasses.replace(recipe[0], count=1),)  # the caption is the second view
    augment = Augment(recipe, pixels.mean, pixels.std)
    forced = None if settings.placement == "auto" else settings.placement
    placement, reason = choose_placement(opened, pixels, image_size, forced=forced)
    count = "a stream" if isinstance(opened, Stream) else f"{len(opened):,} pictures"
    height, width = check.sizes[1]
    size = f"{height} x {width}" if pixels.size else f"many sizes, usually {height} x {width}"
    kind = f"{counted(pixels.channels, 'channels')} of {pixels.depth}"
    console.print(f"data: {opened.name}, {count} of {size}, {kind}", markup=False)
    console.print(f"data: normalisation {pixels.normalisation}", markup=False)
    console.print(f"data: in {placement}: {reason}", markup=False)
    feed, usable, kept = place(opened, pixels, image_size, recipe, augment, placement, settings)
    if settings.batch_size > usable:
        raise InputError(f"batch_size {settings.batch_size} is larger than the {usable} usable images: lower it")
    labels = None if isinstance(opened, Stream) or opened.labels is None else torch.from_numpy(opened.labels[kept])
    prepared = Prepared(source, pixels, image_size, recipe, feed, check, placement, usable, usable, labels)
    return pair_with_captions(prepared, kept, text, settings, console) if text else prepared


def captioned(opened: Source | Stream, console: Console) -> Source:
    """The pictures that have captions. Raises `InputError` where there are none."""
    if isinstance(opened, Stream) or opened.captions is None or not any(opened.captions):
        raise InputError(
            f"{opened.name} has no captions: name their file with --captions (JSON lines, CSV, COCO's JSON or Flickr's "
            "tokens), or put it beside the pictures as captions.jsonl"
        )
    having = np.flatnonzero([bool(sentences) for sentences in opened.captions])
    if len(having) == len(opened):
        return opened
    console.print(f"data: {len(opened) - len(having):,} of {len(opened):,} pictures have no captions and are left out")
    return Chosen(opened, having)


def pair_with_captions(
    prepared: Prepared, kept: Any, text: str, settings: SimpleNamespace, console: Console
) -> Prepared:
    """The same with every pair of picture and caption as a sample, its caption as numbers."""
    assert prepared.source.captions is not None
    captions = [prepared.source.captions[index] for index in np.arange(len(prepared.source))[kept]]
    sentences = [sentence for each in captions for sentence in each]
    tokenizer = tokenizer_for(token_kind(text), sentences, Path(settings.output or "."), resumed=settings.resume)
    tokens = tokenizer(sentences)
    words = f"{len(sentences):,} captions, {tokenizer.vocabulary - 1:,} words or pieces of words"
    if tokenizer.unknown is not None:
        words += f", {100 * float((tokens == tokenizer.unknown).sum() / (tokens > 0).sum()):.1f} % of the text unknown"
    console.print(f"data: {words}", markup=False)
    owners = torch.repeat_interleave(torch.tensor([len(each) for each in captions]))
    feed = CaptionFeed(prepared.feed, owners, tokens)  # type: ignore[arg-type]
    return dataclasses.replace(prepared, feed=feed, items=len(sentences), tokenizer=tokenizer)


def tokenizer_for(kind: str, captions: list[str], folder: Path, *, resumed: bool) -> Tokenizer:
    """The tokenizer that a resumed run began with, the one of a Hugging Face model, or a new one."""
    if resumed:
        return Tokenizer((folder / TOKENIZER).read_text(encoding="utf-8"))
    if kind.startswith(HUB):
        return model_tokenizer(kind.removeprefix(HUB))
    return train_tokenizer(kind, captions)  # type: ignore[arg-type]


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
