"""Everything that the measures need of a set of vectors, gathered batch by batch and mergeable exactly.

The d x d second moments are kept as a triangular factor R with R'R = [1 Z]'[1 Z] (a running QR factorisation)
and not as a sum of products: a sum of products loses half of the digits of every small singular value, which is
where collapse shows. The column of ones carries the count and the mean, so that what is below the first row of R
is the factor of the CENTRED vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fullrank.errors import InputError

SAMPLE_ROWS = 1024  # enough for half a million pairs; bounds the n x n distances of the cluster test
BUFFER_ROWS = 8192  # rows (d if that is more) kept before they are folded into R: few factorisations, bounded memory
NO_VECTORS = "no vectors were given: update the statistics with at least one batch"

Array = Tensor | np.ndarray


def as_vectors(vectors: Array, name: str = "vectors") -> Float[Tensor, "n d"]:
    """The same numbers as an n x d float64 tensor (differentiable for tensors).

    Raises:
        InputError: not two-dimensional, empty, not real numbers, or with NaN or infinite values.
    """
    tensor = vectors if isinstance(vectors, Tensor) else _from_numpy(vectors, name)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(f"{name}: shape {tuple(tensor.shape)} given, n x d expected: one vector a row")
    if tensor.is_complex():
        raise InputError(f"{name}: complex numbers given, real ones expected: give the real part or the modulus")
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor  # MPS has no float64
    tensor = tensor.to(torch.float64)
    broken = int((~torch.isfinite(tensor)).any(dim=1).sum())
    if broken:
        raise InputError(
            f"{name}: NaN or infinite values in {broken} vectors, finite ones expected: "
            "find the step that produced them (precision, learning rate) or leave those rows out"
        )
    return tensor


def as_pairs(first: Array, second: Array) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Both as `as_vectors`. Raises `InputError` for different shapes too."""
    x, y = as_vectors(first, "first"), as_vectors(second, "second")
    if x.shape != y.shape:
        raise InputError(
            f"paired vectors: shapes {tuple(x.shape)} and {tuple(y.shape)} given, equal ones expected: "
            "row i of both must be views of the same sample"
        )
    return x, y


def _from_numpy(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: values of type {array.dtype} given, real numbers expected: give an n x d array")
    return torch.from_numpy(np.array(array, dtype=np.float64))


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per dimension, merged as in Chan, Golub and LeVeque (1979)."""

    count: int
    mean: Tensor  # (d,)
    deviations: Tensor  # (d,)

    @classmethod
    def of(cls, vectors: Float[Tensor, "n d"]) -> Moments:
        """The moments of the rows."""
        mean = vectors.mean(dim=0)
        return cls(len(vectors), mean, (vectors - mean).square().sum(dim=0))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        spread = self.deviations + other.deviations + step.square() * (self.count * other.count / count)
        return Moments(count, mean, spread)


@dataclass
class Sample:
    """A uniform sample of the rows: those with the smallest random keys, so that samples of parts can be merged."""

    rows: Tensor  # (m, d), m at most SAMPLE_ROWS
    keys: Tensor  # (m,)

    def merge(self, other: Sample) -> Sample:
        """The sample of both sets of rows together."""
        if len(self.keys) == SAMPLE_ROWS:  # spares copying the sample for batches of which no row enters
            entering = other.keys < self.keys.max()
            other = Sample(other.rows[entering], other.keys[entering])
            if len(other.keys) == 0:
                return self
        rows, keys = torch.cat([self.rows, other.rows]), torch.cat([self.keys, other.keys])
        if len(keys) <= SAMPLE_ROWS:
            return Sample(rows, keys)
        kept = keys.argsort()[:SAMPLE_ROWS].sort().values
        return Sample(rows[kept], keys[kept])


def fold(rows: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
    """The triangular factor of the rows: at most k rows with the same Gram matrix."""
    return torch.linalg.qr(rows, mode="r").R


@dataclass
class Statistics:
    """What is known of the vectors seen so far: memory O(d^2) whatever their number, none read twice.

    `update` with batches, `merge` the objects of several workers, then give the object to any measure or to
    `diagnose` in place of the array. Everything is exact to rounding and depends neither on the order nor on the
    split, except what needs pairs of vectors (uniformity, self-cluster, clusters): beyond 1024 vectors that comes
    from a uniform sample of 1024.
    """

    width: int
    root: Tensor | None = None  # (k, 1 + d) triangular factor of [1 Z]
    normalised: Moments | None = None  # of z/||z||
    sample: Sample | None = None
    buffer: list[Tensor] = field(default_factory=list, repr=False)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0), repr=False)

    @classmethod
    def of(cls, vectors: Array | Statistics, name: str = "vectors") -> Statistics:
        """The statistics of an array, or the object itself."""
        if isinstance(vectors, Statistics):
            return vectors
        if vectors.ndim != 2 or 0 in vectors.shape:
            as_vectors(vectors, name)  # says what is wrong
        statistics = cls(vectors.shape[1])
        step = max(statistics.width, BUFFER_ROWS)
        for start in range(0, len(vectors), step):  # an array on disk is read piece by piece
            statistics.update(as_vectors(vectors[start : start + step], name))
        return statistics

    @property
    def count(self) -> int:
        """The number of vectors seen."""
        return self.normalised.count if self.normalised else 0

    def update(self, batch: Array) -> Statistics:
        """Take in a batch (n x d); returns the object itself.

        Raises:
            InputError: another width, or not a finite n x d array.
        """
        rows = as_vectors(batch).detach().clone()  # the caller may reuse the batch
        self._expect(rows.shape[1])
        keys = torch.rand(len(rows), generator=self.generator, dtype=torch.float64).to(rows.device)
        self._take(Moments.of(functional.normalize(rows, dim=1)), Sample(rows, keys))
        return self._keep([rows])

    def merge(self, other: Statistics) -> Statistics:
        """Take in what another object has seen; returns the object itself."""
        self._expect(other.width)
        if other.normalised is None or other.sample is None:
            return self
        self._take(other.normalised, other.sample)
        parts = [root for root in (self.root, other.root) if root is not None]
        self.root = fold(torch.cat(parts)) if parts else None
        return self._keep(other.buffer)

    def _keep(self, rows: list[Tensor]) -> Statistics:
        self.buffer.extend(rows)
        if sum(len(part) for part in self.buffer) >= max(self.width, BUFFER_ROWS):
            self._fold()
        return self

    def _expect(self, width: int) -> None:
        if width != self.width:
            raise InputError(f"vectors of width {width} given, width {self.width} expected: one object per embedding")

    def _take(self, normalised: Moments, sample: Sample) -> None:
        self.normalised = self.normalised.merge(normalised) if self.normalised else normalised
        empty = Sample(sample.rows[:0], sample.keys[:0])
        self.sample = (self.sample or empty).merge(sample)

    def _fold(self) -> Tensor:
        """The triangular factor of [1 Z] with every buffered row folded in."""
        parts = [] if self.root is None else [self.root]
        parts += [functional.pad(rows, (1, 0), value=1.0) for rows in self.buffer]
        if not parts:
            raise InputError(NO_VECTORS)
        if self.buffer:
            self.root = fold(torch.cat(parts))
            self.buffer.clear()
        assert self.root is not None
        return self.root

    @property
    def normalised_moments(self) -> Moments:
        """The moments of z/||z||."""
        if self.normalised is None:
            raise InputError(NO_VECTORS)
        return self.normalised

    @property
    def sample_rows(self) -> Float[Tensor, "m d"]:
        """A uniform sample of at most 1024 vectors; all of them while they are fewer."""
        if self.sample is None:
            raise InputError(NO_VECTORS)
        return self.sample.rows

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean vector."""
        root = self._fold()
        return root[0, 1:] / root[0, 0]  # the first row of R is +-sqrt(n) [1 mean]

    def factor(self, *, centred: bool) -> Float[Tensor, "k d"]:
        """At most d + 1 rows with the same Gram matrix, hence singular values, as the n vectors (minus their mean)."""
        root = self._fold()
        return root[1:, 1:] if centred else root[:, 1:]

    def to_dict(self) -> dict[str, Any]:
        """Tensors and numbers only, as `torch.save` and `torch.load(weights_only=True)` take them."""
        state: dict[str, Any] = {"width": self.width, "generator": self.generator.get_state()}
        if self.normalised and self.sample:
            moments = self.normalised
            state |= {"root": self._fold(), "rows": self.sample.rows, "keys": self.sample.keys}
            state |= {"count": moments.count, "mean": moments.mean, "deviations": moments.deviations}
        return state

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Statistics:
        """The object that `to_dict` was called on."""
        statistics = cls(state["width"])
        statistics.generator.set_state(state["generator"])
        if "root" in state:
            statistics.root = state["root"]
            statistics.normalised = Moments(state["count"], state["mean"], state["deviations"])
            statistics.sample = Sample(state["rows"], state["keys"])
        return statistics


@dataclass
class PairedStatistics:
    """The statistics of two views (or two branches) of the same samples: row i of one belongs to row i of the other."""

    first: Statistics
    second: Statistics
    difference: Moments | None = None  # of x - y: what the views do not share
    squared_distance: float = 0.0  # summed over pairs, between the normalised vectors

    @classmethod
    def of(cls, first: Array, second: Array) -> PairedStatistics:
        """The statistics of two arrays of the same shape."""
        x, y = as_pairs(first, second)
        return cls(Statistics(x.shape[1]), Statistics(y.shape[1])).update(x, y)

    def update(self, first: Array, second: Array) -> PairedStatistics:
        """Take in a batch of pairs (n x d each); returns the object itself.

        Raises:
            InputError: arrays of different shapes, or what `Statistics.update` refuses.
        """
        x, y = (vectors.detach() for vectors in as_pairs(first, second))
        self.first.update(x)
        self.second.update(y)
        gap = functional.normalize(x, dim=1) - functional.normalize(y, dim=1)
        self._take(Moments.of(x - y), float(gap.square().sum()))
        return self

    def merge(self, other: PairedStatistics) -> PairedStatistics:
        """Take in what another object has seen; returns the object itself."""
        self.first.merge(other.first)
        self.second.merge(other.second)
        if other.difference is not None:
            self._take(other.difference, other.squared_distance)
        return self

    def _take(self, difference: Moments, squared_distance: float) -> None:
        self.difference = self.difference.merge(difference) if self.difference else difference
        self.squared_distance += squared_distance

    @property
    def alignment(self) -> float:
        """Mean squared distance of the normalised vectors of a pair: 0 when the views agree, 2 when unrelated."""
        return self.squared_distance / max(self.first.count, 1)

    @property
    def agreement(self) -> float:
        """Share of the variance that the views have in common: 1 when equal up to an offset, about 0 when unrelated."""
        if self.difference is None:
            raise InputError(NO_VECTORS)
        both = sum(float(view.factor(centred=True).square().sum()) for view in (self.first, self.second))
        return 1 - float(self.difference.deviations.sum()) / both if both > 0 else 1.0
