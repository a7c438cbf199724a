"""Data that can only be read in order: Hugging Face sets and webdataset shards, streamed.

Every sample goes to one rank and one worker only.  Ranks are set with `for_rank`; workers find their own
part.  Samples are mixed by shuffling shards and a buffer of still-encoded samples.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import get_worker_info

from fullrank.data.decode import decode, explain
from fullrank.data.layout import IMAGE_SUFFIXES
from fullrank.data.source import Source, UnreadableImage
from fullrank.errors import InputError, unknown

log = logging.getLogger(__name__)
SHUFFLE_BUFFER = 2_000
MAX_FAILURES = 100
"""So many unreadable samples in a row end a stream with an error."""


class Encoded(NamedTuple):
    """A sample as it lies in the stream."""

    name: str
    content: bytes | Path
    label: int | None


class Stream(ABC):
    """Samples in order, (name, (H, W, C) array, label or None); unreadable ones are skipped and logged.

    Attributes:
        name: what the log calls it.
        classes: the names behind the labels, when the stream declares them.
        epoch: set it before iterating; another epoch has another order.
        shuffle: the number of samples in the shuffling buffer; 0 keeps the stored order.
    """

    def __init__(self, name: str, classes: list[str]) -> None:
        self.name = name
        self.classes = classes
        self.epoch = 0
        self.shuffle = 0
        self.rank, self.world_size = 0, 1

    def for_rank(self, rank: int, world_size: int) -> None:
        """Read only the share of one process of several."""
        self.rank, self.world_size = rank, world_size

    @abstractmethod
    def encoded(self) -> Iterator[Encoded]:
        """The samples of this rank and worker, not decoded yet."""

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, int | None]]:
        failures = 0
        for sample in self.encoded():
            try:
                yield sample.name, _decode(sample), sample.label
                failures = 0
            except UnreadableImage as error:
                log.warning("skipped: %s", error)
                failures += 1
                if failures == MAX_FAILURES:
                    raise InputError(f"{self.name}: {failures} samples in a row are unreadable; {error}") from error

    def first(self, count: int | None = None, held: float = math.inf) -> Source:
        """The first `count` samples as a source, or as many as `held` bytes have room for; by default all."""
        samples, size, stream = [], 0, iter(self.encoded())
        for sample in itertools.islice(stream, count):
            samples.append(sample)
            size += 0 if isinstance(sample.content, Path) else len(sample.content)
            if size >= held:
                break
        return FirstSamples(self.name, samples, self.classes, whole=next(stream, None) is None)


class FirstSamples(Source):
    """Samples of a stream, kept encoded."""

    def __init__(self, name: str, samples: list[Encoded], classes: list[str], *, whole: bool = False) -> None:
        if not samples:
            raise InputError(f"{name} holds no samples with pictures")
        labels = np.array([-1 if sample.label is None else sample.label for sample in samples], dtype=np.int64)
        known = labels if (labels >= 0).any() else None
        if known is not None and not classes:
            classes = list(map(str, range(int(labels.max()) + 1)))
        called = name if whole else f"{name} (first {len(samples):,})"
        super().__init__(called, [s.name for s in samples], known, classes)
        self._samples = samples

    def digest(self, index: int) -> bytes:
        """Of the encoded picture."""
        sample = self._samples[index]
        try:
            content = sample.content.read_bytes() if isinstance(sample.content, Path) else sample.content
        except OSError as error:
            raise UnreadableImage(sample.name, explain(error)) from error
        return hashlib.blake2b(content, digest_size=16).digest()

    def read(self, index: int) -> np.ndarray:
        """(H, W, C); see `decode`."""
        return _decode(self._samples[index])


def _decode(sample: Encoded) -> np.ndarray:
    try:
        with sample.content.open("rb") if isinstance(sample.content, Path) else BytesIO(sample.content) as file:
            return decode(file)[0]
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UnreadableImage(sample.name, explain(error)) from error


class HuggingFace(Stream):
    """A data set of the Hugging Face hub, or a local folder of parquet, arrow or pictures, streamed.

    The column is `image` or `img`, else the first with pictures; a class label column gives labels.  With
    fewer files than processes, every process reads all of them and keeps its share.
    """

    def __init__(self, spec: str, split: str | None) -> None:
        try:
            import datasets
        except ImportError as error:
            raise InputError("hf: needs the package datasets: pip install 'fullrank[huggingface]'") from error
        try:
            self._dataset: Any = datasets.load_dataset(spec, split=split or "train", streaming=True)
        except Exception as error:  # network, name, split, format: its message says which
            raise InputError(f"hf:{spec} cannot be opened: {' '.join(str(error).split())}") from error
        features = self._dataset.features or {}
        self._column = _picture_column(spec, features or next(iter(self._dataset), {}), datasets.Image)
        self._label = next((n for n, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
        self._dataset = self._dataset.cast_column(self._column, datasets.Image(decode=False))
        classes = list(features[self._label].names) if self._label else []
        super().__init__(f"hf:{spec}[{split or 'train'}]", classes)

    def encoded(self) -> Iterator[Encoded]:
        """The rows of this rank and worker."""
        from datasets.distributed import split_dataset_by_node

        dataset = self._dataset
        if self.shuffle:
            dataset = dataset.shuffle(seed=self.epoch, buffer_size=self.shuffle)
        # inside a worker, datasets gives every worker its own files by itself
        for number, row in enumerate(split_dataset_by_node(dataset, self.rank, self.world_size)):
            cell = row[self._column] or {}
            content = cell.get("bytes") or Path(cell.get("path") or "missing")
            label = row[self._label] if self._label else None
            yield Encoded(cell.get("path") or f"row {number}", content, label)


def _picture_column(spec: str, features: Any, kind: type) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if not found:
        raise InputError(f"hf:{spec} has no column of pictures; its columns are {', '.join(features) or 'unknown'}")
    return next((name for name in ("image", "img") if name in found), found[0])


class WebDataset(Stream):
    """webdataset shards: tar files whose pictures and `.cls` labels share a name up to the first dot.

    With at least as many shards as readers, each reader has its own shards; with fewer, all readers read
    all shards and keep their share of the samples.
    """

    def __init__(self, urls: str, split: str | None) -> None:
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise InputError("shards need the package webdataset: pip install 'fullrank[webdataset]'") from error
        if split is not None:
            raise unknown("split of webdataset shards", split, ["none: name the shards of the split"])
        self._shards: list[str] = [path for url in expand_urls(urls) for path in (sorted(glob.glob(url)) or [url])]
        missing = [url for url in self._shards if "://" not in url and ":" not in url[:6] and not Path(url).is_file()]
        if missing:
            raise InputError(f"shard '{missing[0]}' does not exist ({len(missing)} of {len(self._shards)} are missing)")
        super().__init__(f"wds:{urls}", [])

    def encoded(self) -> Iterator[Encoded]:
        """The samples of this rank and worker."""
        import webdataset

        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        reader, readers = self.rank * workers + (worker.id if worker else 0), self.world_size * workers
        shards = list(self._shards)
        if self.shuffle:
            random.Random(self.epoch).shuffle(shards)
        shared = len(shards) < readers
        mine = shards if shared else shards[reader::readers]
        # the division above is the only one: webdataset's own would divide a second time
        samples: Any = webdataset.WebDataset(mine, shardshuffle=False, nodesplitter=None, workersplitter=None)
        if shared:
            samples = samples.slice(reader, None, readers)
        if self.shuffle:
            samples = samples.shuffle(self.shuffle, rng=random.Random(f"{self.epoch} {reader}"))
        try:
            yield from filter(None, map(_from_shard, samples))
        except Exception as error:
            raise InputError(f"{self.name} cannot be read: {' '.join(str(error).split())}") from error


def _from_shard(sample: dict[str, Any]) -> Encoded | None:
    key = next((key for key in sample if f".{key.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES), None)
    if key is None:
        return None
    label = sample.get("cls", b"").strip()
    return Encoded(f"{sample['__key__']}.{key}", sample[key], int(label) if label.isdigit() else None)
