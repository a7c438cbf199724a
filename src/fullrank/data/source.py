"""What every data set looks like to the rest of the library: numbered pictures with names."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fullrank.data.objects import Objects
from fullrank.errors import InputError


class UnreadableImage(InputError):
    """One sample that cannot be used. Training skips and counts it; `reason` is the part without the name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read '{self.name}': {self.reason}"


class Source(ABC):
    """Pictures by number, from wherever they are kept.

    A source can be pickled into worker processes and read from several threads at once.

    Attributes:
        name: what the log calls it, such as `photos/` or `cifar10.tar.xz[train]`.
        names: one name for each sample: the path inside the folder or archive, or its number.
        labels: int64 (N,), or None when the set has no labels.
        classes: the names behind the labels; empty when there are none.
        factors: known generating factors by name, (N,) each; only the embedded set has them.
        factor_kinds: how each factor is read: `category`, `number` or `angle` (radians).
        captions: sentences about each picture, (N,) lists of any length, or None when the set has none.
        targets: int8 (N, classes) where a picture may have several labels: 1 present, 0 absent, -1 neither right nor
            wrong (a row of -1 is a picture of which nothing is known); else None.
        objects: what is marked in each picture, read when it is asked for; None when boxes are unknown.
    """

    captions: Sequence[Sequence[str]] | None = None
    targets: np.ndarray | None = None
    objects: Sequence[Objects] | None = None

    def __init__(
        self,
        name: str,
        names: Sequence[str] | range,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
        factors: Mapping[str, np.ndarray] | None = None,
        factor_kinds: Mapping[str, Any] | None = None,
    ) -> None:
        if labels is not None and len(labels) != len(names):
            raise InputError(f"{name}: {len(labels)} labels for {len(names)} pictures; give one label for each picture")
        self.name = name
        self.names: Sequence[str] = [str(i) for i in names] if isinstance(names, range) else names
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)
        self.factors = dict(factors or {})
        self.factor_kinds: dict[str, Any] = dict(factor_kinds or {})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def origin(self) -> Source:
        """The source itself, or the one that its pictures were chosen from."""
        return self

    @property
    def known(self) -> np.ndarray | None:
        """Targets (N, classes) where a picture may have several labels, else labels (N,), or None."""
        return self.labels if self.targets is None else self.targets

    def digest(self, index: int) -> bytes:
        """Of the content of sample `index`: another when the picture is another."""
        picture = self.read(index)
        digest = hashlib.blake2b(f"{picture.shape} {picture.dtype}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(picture).data)
        return digest.digest()

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Sample `index` as (H, W, C) at its native depth: uint8, uint16 or float32.

        Raises `UnreadableImage` when this sample is broken.
        """

    def look(self, index: int) -> tuple[np.ndarray, str]:
        """The picture and the mode it is stored in, such as `RGB`, `CMYK` or `uint16 x 13`."""
        image = self.read(index)
        return image, f"{image.dtype} x {image.shape[-1]}"


class Looked(Sequence["Objects"]):
    """Objects of each picture, read when they are asked for."""

    def __init__(self, readers: Sequence[Callable[[], Objects]]) -> None:
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, index: int) -> Objects:  # type: ignore[override]
        return self._readers[index]()


class Chosen(Source):
    """Some pictures of a source, by their positions in it."""

    def __init__(self, source: Source, positions: np.ndarray) -> None:
        labels = None if source.labels is None else source.labels[positions]
        factors = {name: np.asarray(values)[positions] for name, values in source.factors.items()}
        names = [source.names[position] for position in positions]
        super().__init__(source.name, names, labels, source.classes, factors, source.factor_kinds)
        self._source, self._positions = source, positions
        if source.captions is not None:
            self.captions = [source.captions[position] for position in positions]
        if source.targets is not None:
            self.targets = source.targets[positions]
        if source.objects is not None:
            self.objects = Looked([partial(source.objects.__getitem__, int(position)) for position in positions])

    @property
    def origin(self) -> Source:
        """The source that was chosen from."""
        return self._source.origin

    def digest(self, index: int) -> bytes:
        """As the source's own."""
        return self._source.digest(int(self._positions[index]))

    def read(self, index: int) -> np.ndarray:
        """As the source's own."""
        return self._source.read(int(self._positions[index]))

    def look(self, index: int) -> tuple[np.ndarray, str]:
        """As the source's own."""
        return self._source.look(int(self._positions[index]))
