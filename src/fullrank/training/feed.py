"""From a source of pictures to the views that a method sees: in memory on the device, or decoded in workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fullrank.data.loading import Decoded, DecodedStream
from fullrank.data.source import Source
from fullrank.data.statistics import Pixels
from fullrank.data.streams import SHUFFLE_BUFFER, Stream
from fullrank.methods import Batch
from fullrank.training.batches import Batches, Draw, ResumableLoader, mix
from fullrank.views import Augment, RandomCrops, Recipe
from fullrank.views.crop import stack_crops


class Feed(Protocol):
    """What the trainer needs of the data: a loader, and how its batches become views on the device."""

    def loader(self, batches: Batches) -> DataLoader:
        """The loader of one process."""

    def to(self, device: torch.device) -> None:
        """Bring what lives on the device there."""

    def views(self, loaded: Any) -> Batch:
        """Random views of a loaded batch; random numbers come from torch's default generator."""


class Positions(Dataset):
    """The positions themselves: pictures that are on the device already need no loading."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, draw: Draw) -> int:
        return draw[0]


class MemoryFeed:
    """All pictures as one tensor on the device; no workers."""

    def __init__(self, images: Tensor, augment: Augment) -> None:
        self.images = images  # (N, C, H, W), uint8 or float
        self.augment = augment

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of positions."""
        self.augment.share = (batches.rank, batches.world_size)
        return ResumableLoader(Positions(len(self.images)), batch_sampler=batches, collate_fn=torch.tensor)

    def to(self, device: torch.device) -> None:
        """Move pictures and normalisation to the device once."""
        self.images = self.images.to(device)
        self.augment.to(device)

    def views(self, loaded: Tensor) -> Batch:
        """Crops and everything after them, batched on the device."""
        return Batch(self.augment(self.images[loaded.to(self.images.device)]), loaded)


class SeededCrops(Dataset):
    """Decoded and cropped samples whose random crops depend on the draw's number alone, not on the worker."""

    def __init__(self, decoded: Decoded, seed: int) -> None:
        self.decoded = decoded
        self.seed = seed

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, draw: Draw) -> tuple[list[Tensor], int]:
        index, number = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, number))
            return self.decoded[index]


def collate_crops(samples: list[tuple[list[Tensor], int]]) -> tuple[list[Tensor], Tensor]:
    """Samples of V crops each -> V batches of crops, and the samples' positions."""
    crops, index = zip(*samples, strict=True)
    return [stack_crops(list(view)) for view in zip(*crops, strict=True)], torch.tensor(index)


class WorkerFeed:
    """Pictures decoded and cropped to uint8 in worker processes; the rest happens in batches on the device."""

    def __init__(
        self, source: Source, pixels: Pixels, recipe: Recipe, augment: Augment, *, workers: int, seed: int
    ) -> None:
        self.crops: Dataset = SeededCrops(Decoded(source, pixels, RandomCrops(recipe)), seed)
        self.augment = augment
        self.workers = workers

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of uint8 crops, one (B, C, S, S) tensor a view."""
        self.augment.share = (batches.rank, batches.world_size)
        return ResumableLoader(self.crops, batch_sampler=batches, **self.decoding())

    def decoding(self) -> dict[str, Any]:
        """How the loader works: processes, batches that wait, and how crops become batches."""
        waiting = {"prefetch_factor": 4} if self.workers else {}
        pinned = torch.cuda.is_available()
        return {"num_workers": self.workers, "pin_memory": pinned, "collate_fn": collate_crops, **waiting}

    def to(self, device: torch.device) -> None:
        """Move the normalisation to the device."""
        self.augment.to(device)

    def views(self, loaded: tuple[list[Tensor], Tensor]) -> Batch:
        """Everything after the crop."""
        crops, index = loaded
        return Batch(self.augment.finish(crops), index)


class Endless(IterableDataset):
    """A stream again and again, in another order each time."""

    def __init__(self, stream: Stream, decoded: DecodedStream) -> None:
        self.stream = stream
        self.decoded = decoded

    def __iter__(self) -> Iterator[tuple[list[Tensor], int]]:
        yielded = True
        while yielded:  # a share without a single sample ends instead of spinning
            yielded = False
            for sample in self.decoded:
                yielded = True
                yield sample
            self.stream.epoch += 1


class StreamFeed(WorkerFeed):
    """Pictures that can only be read in order; a resumed run goes on with other ones."""

    def __init__(self, stream: Stream, pixels: Pixels, recipe: Recipe, augment: Augment, *, workers: int) -> None:
        self.stream = stream
        self.crops = Endless(stream, DecodedStream(stream, pixels, RandomCrops(recipe)))
        self.augment = augment
        self.workers = workers

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of uint8 crops from this process's share of the stream."""
        self.augment.share = (batches.rank, batches.world_size)
        self.stream.for_rank(batches.rank, batches.world_size)
        self.stream.shuffle = SHUFFLE_BUFFER
        self.stream.epoch = batches.start  # a resumed run does not begin with the same pictures again
        return ResumableLoader(self.crops, batch_size=batches.rows, drop_last=True, **self.decoding())
