"""How pictures reach the training loop: all decoded into one tensor, or decoded by workers as they are needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torchvision.transforms.v2 import functional

from fullrank.data.memory import available_memory
from fullrank.data.source import Source, UnreadableImage
from fullrank.data.statistics import Pixels
from fullrank.data.streams import Stream
from fullrank.errors import InputError, unknown

log = logging.getLogger(__name__)
MEMORY_LIMIT = 2 << 30
"""Bytes: sets up to this size, and up to a quarter of the free memory, are decoded once."""
MAX_UNREADABLE = 0.1
"""The share of unreadable pictures above which there is something wrong with the set."""

Placement = Literal["memory", "workers"]


def choose_placement(
    source: Source | Stream, pixels: Pixels, size: int, forced: str | None = None
) -> tuple[Placement, str]:
    """Where the pictures are kept, and why, in one sentence for the log.

    Args:
        size: the side to which pictures are resized and cut when memory is forced on pictures of many sizes.
        forced: `memory` or `workers` to decide by hand.

    Raises:
        InputError: memory is forced and impossible, or `forced` is another word.
    """
    if forced not in (None, "memory", "workers"):
        raise unknown("placement", str(forced), ["memory", "workers"])
    if isinstance(source, Stream):
        if forced == "memory":
            raise InputError(f"{source.name} is a stream of unknown length, which cannot be kept in memory")
        return "workers", "a stream is decoded by workers"
    height, width = pixels.size or (size, size)
    need = len(source) * pixels.channels * height * width * (1 if pixels.depth == "uint8" else 2)
    if forced == "memory":
        if need > available_memory():
            raise InputError(f"{source.name} needs {_mib(need)} decoded, more than is free; use workers")
        cut = "" if pixels.size else f"; sizes differ, so every picture is resized and cut to {size} x {size}"
        return "memory", f"asked for: {_mib(need)}{cut}"
    if forced == "workers":
        return "workers", "asked for"
    if pixels.size is None:
        return "workers", "sizes differ, so pictures are decoded by workers and cut there"
    limit = min(MEMORY_LIMIT, available_memory() // 4)
    if need > limit:
        return "workers", f"{_mib(need)} decoded, more than the limit of {_mib(limit)}"
    return "memory", f"all pictures have one size and take {_mib(need)} decoded"


def load_in_memory(source: Source, pixels: Pixels, size: int) -> tuple[Tensor, np.ndarray]:
    """Every readable picture, decoded, as one tensor.

    Pictures keep their size when the set has one; others are resized by the short side to `size` and cut in
    the middle.  Unreadable ones are left out, logged and counted.

    Returns:
        images: (N, C, H, W), uint8 for 8-bit sets, float16 in [0, 1] for deeper ones, which 8 bits would spoil.
        kept: int64 (N,), the index in the source of every row.

    Raises:
        InputError: more than a tenth of the pictures is unreadable.
    """
    height, width = pixels.size or (size, size)
    dtype = torch.uint8 if pixels.depth == "uint8" else torch.float16
    images = torch.empty((len(source), pixels.channels, height, width), dtype=dtype)
    kept: list[int] = []
    unreadable: list[UnreadableImage] = []
    for index in range(len(source)):
        try:
            images[len(kept)] = _resized(read_tensor(source, pixels, index), height, width)
        except UnreadableImage as error:
            unreadable.append(error)
        else:
            kept.append(index)
    if unreadable:
        refuse_if_too_many(source, [error.name for error in unreadable], len(source))
        some = "; ".join(map(str, unreadable[:3])) + ("; ..." if len(unreadable) > 3 else "")
        log.warning("%s", f"left out {len(unreadable):,} of {len(source):,} pictures: {some}")
    return images[: len(kept)], np.array(kept, dtype=np.int64)


def read_tensor(source: Source, pixels: Pixels, index: int) -> Tensor:
    """Picture `index` as (C, H, W) in the set's format.  Raises `UnreadableImage` when it does not fit."""
    image = source.read(index)
    try:
        return pixels.to_tensor(image)
    except InputError as error:
        raise UnreadableImage(source.names[index], str(error)) from error


def refuse_if_too_many(source: Source, unreadable: Sequence[str], looked_at: int) -> None:
    """Raise `InputError` when more than a tenth of the pictures is unreadable."""
    if len(unreadable) > MAX_UNREADABLE * looked_at:
        some = ", ".join(f"'{name}'" for name in unreadable[:3])
        raise InputError(
            f"{len(unreadable):,} of {looked_at:,} pictures of {source.name} cannot be read ({some}, ...);"
            " `fullrank check` says why; repair or remove them"
        )


class Decoded(Dataset[tuple[Any, int]]):
    """A source for `DataLoader` workers: (transform(picture (C, H, W)), index).

    An unreadable picture is replaced by a readable one, always by the same, with its own index; `unreadable`
    tells which were met, from all workers.

    Args:
        source: the pictures.
        pixels: their format; pictures are uint8, or float32 in [0, 1] for deeper sets.
        transform: what makes crops of one picture.
    """

    def __init__(self, source: Source, pixels: Pixels, transform: Callable[[Tensor], Any]) -> None:
        self._source, self._pixels, self._transform = source, pixels, transform
        self._broken = torch.zeros(len(source), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        substitutes = np.random.default_rng(index)
        while True:
            try:
                return self._transform(read_tensor(self._source, self._pixels, index)), index
            except UnreadableImage as error:
                self._note(index, error)
            index = int(substitutes.integers(len(self._source)))

    def unreadable(self) -> list[str]:
        """The names of the unreadable pictures met so far."""
        return [self._source.names[i] for i in self._broken.nonzero().flatten().tolist()]

    def _note(self, index: int, error: UnreadableImage) -> None:
        if not self._broken[index]:
            log.warning("replaced by another picture: %s", error)
            self._broken[index] = True
            refuse_if_too_many(self._source, self.unreadable(), len(self._source))


class DecodedStream(IterableDataset[tuple[Any, int]]):
    """A stream for `DataLoader` workers: (transform(picture (C, H, W)), a number that no other sample has)."""

    def __init__(self, stream: Stream, pixels: Pixels, transform: Callable[[Tensor], Any]) -> None:
        self._stream, self._pixels, self._transform = stream, pixels, transform

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        first, step = self._stream.rank * workers + number, self._stream.world_size * workers
        for count, (name, image, _) in enumerate(self._stream):
            try:
                picture = self._pixels.to_tensor(image)
            except InputError as error:
                log.warning("skipped: %s", UnreadableImage(name, str(error)))
                continue
            yield self._transform(picture), first + count * step


def _resized(picture: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W): the largest middle part of the right shape, resized with antialiasing."""
    if picture.shape[1:] == (height, width):
        return picture
    scale = max(height / picture.shape[1], width / picture.shape[2])
    size = [max(height, round(picture.shape[1] * scale)), max(width, round(picture.shape[2] * scale))]
    return functional.center_crop(functional.resize(picture, size, antialias=True), [height, width])


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
