"""From a source of pictures to the views that a method sees: in memory on the device, or decoded in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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
        self.samples: Dataset = Positions(len(images))
        self.augment = augment

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of positions."""
        self.augment.share = (batches.rank, batches.world_size)
        return ResumableLoader(self.samples, batch_sampler=batches, **self.loading())

    def loading(self) -> dict[str, Any]:
        """How positions become batches."""
        return {"collate_fn": torch.tensor}

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
        self.samples: Dataset = SeededCrops(Decoded(source, pixels, RandomCrops(recipe)), seed)
        self.augment = augment
        self.workers = workers

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of uint8 crops, one (B, C, S, S) tensor a view."""
        self.augment.share = (batches.rank, batches.world_size)
        return ResumableLoader(self.samples, batch_sampler=batches, **self.loading())

    def loading(self) -> dict[str, Any]:
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


class PairedSamples(Dataset):
    """A pair's picture, as another set gives it, beside the number of the pair."""

    def __init__(self, pictures: Dataset, owners: Tensor) -> None:
        self.pictures = pictures
        self.owners = owners

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, draw: Draw) -> tuple[Any, int]:
        pair, number = draw
        return self.pictures[int(self.owners[pair]), number], pair


class CaptionFeed:
    """Pictures beside their captions: every pair of the two is a sample, and no picture is kept twice.

    Args:
        pictures: gives the view of each picture.
        owners: the picture of every pair, (pairs,).
        tokens: the caption of every pair, whole numbers (pairs, l) padded with 0.
    """

    def __init__(self, pictures: MemoryFeed | WorkerFeed, owners: Tensor, tokens: Tensor) -> None:
        self.pictures = pictures
        self.owners = owners
        self.tokens = tokens

    @property
    def augment(self) -> Augment:
        """What makes the views of pictures."""
        return self.pictures.augment

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of pairs."""
        self.augment.share = (batches.rank, batches.world_size)
        loading = self.pictures.loading()
        loading["collate_fn"] = partial(collate_pairs, loading["collate_fn"])
        return ResumableLoader(PairedSamples(self.pictures.samples, self.owners), batch_sampler=batches, **loading)

    def to(self, device: torch.device) -> None:
        """Move the pictures and their normalisation."""
        self.pictures.to(device)

    def views(self, loaded: tuple[Any, Tensor]) -> Batch:
        """The picture's view and the caption."""
        batch = self.pictures.views(loaded[0])
        pairs = self._readable(batch.index, loaded[1])
        batch.views.append(self.tokens[pairs].long().to(batch.views[0].device))
        return batch

    def _readable(self, index: Tensor, pairs: Tensor) -> Tensor:
        """The pairs, where a picture that cannot be read was replaced by another the first of that one's."""
        replaced = self.owners[pairs] != index
        return torch.where(replaced, torch.searchsorted(self.owners, index), pairs) if replaced.any() else pairs


def collate_pairs(collate: Callable[[list], Any], samples: list[tuple[Any, int]]) -> tuple[Any, Tensor]:
    """A batch of pictures, and the numbers of their pairs."""
    pictures, pairs = zip(*samples, strict=True)
    return collate(list(pictures)), torch.tensor(pairs)


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
        self.samples = Endless(stream, DecodedStream(stream, pixels, RandomCrops(recipe)))
        self.augment = augment
        self.workers = workers

    def loader(self, batches: Batches) -> DataLoader:
        """Batches of uint8 crops from this process's share of the stream."""
        self.augment.share = (batches.rank, batches.world_size)
        self.stream.for_rank(batches.rank, batches.world_size)
        self.stream.shuffle = SHUFFLE_BUFFER
        self.stream.epoch = batches.start  # a resumed run does not begin with the same pictures again
        return ResumableLoader(self.samples, batch_size=batches.rows, drop_last=True, **self.loading())
