"""What is seen in a set of vectors before any rule judges it: spectrum, floor, clusters, dead and copied dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fullrank.collapse import limits, measures
from fullrank.collapse.statistics import PairedStatistics, Statistics


@dataclass(frozen=True)
class Floor:
    """Where the spectrum ends: `kept` directions, then a fall by `drop` to noise that holds `share` of the variance."""

    kept: int
    drop: float  # infinite when nothing is behind
    share: float


@dataclass(frozen=True)
class Clusters:
    """Groups of nearly equal vectors in the sample."""

    count: int
    share: float  # of the variance, between the centres of the groups


@dataclass(frozen=True)
class Evidence:
    """Everything that the rules look at, computed once from `Statistics`."""

    name: str
    statistics: Statistics
    target_std: float | int | None = None
    on_sphere: bool = False  # whether the vectors have length 1 and their directions are all that counts
    pairs: PairedStatistics | None = field(default=None, repr=False)

    @cached_property
    def count(self) -> int:
        """n."""
        return self.statistics.count

    @cached_property
    def width(self) -> int:
        """d."""
        return self.statistics.width

    @cached_property
    def possible(self) -> int:
        """The rank that n centred vectors of width d can have: min(n - 1, d)."""
        return min(self.count - 1, self.width)

    @cached_property
    def singular(self) -> Float[Tensor, " r"]:
        """Singular values of the centred vectors, as many as can differ from 0."""
        return measures.singular_values(self.statistics, centred=True)[: self.possible]

    @cached_property
    def shares(self) -> Float[Tensor, " r"]:
        """Share of the variance along each principal direction, descending; zeros for a single point."""
        variances = self.singular.square()
        return variances / variances.sum() if variances.sum() > 0 else variances

    @cached_property
    def std(self) -> Float[Tensor, " d"]:
        """Standard deviation of each dimension."""
        return measures.standard_deviation(self.statistics)

    @cached_property
    def spread(self) -> float:
        """Root mean square distance of the vectors from their mean."""
        return float(self.std.norm())

    @cached_property
    def offset(self) -> float:
        """Length of the mean vector."""
        return float(self.statistics.mean.norm())

    @cached_property
    def variance_share(self) -> float:
        """Share of the mean squared length that differs between vectors: 1 without offset, 0 for one point."""
        total = self.spread**2 + self.offset**2
        return self.spread**2 / total if total > 0 else 0.0

    @cached_property
    def floor(self) -> Floor | None:
        """The noise floor below the first few directions, if the spectrum has one.

        A floor must be more than half of the spectrum, hold little of the variance, and begin with a fall that no
        smooth spectrum has: see `limits`.
        """
        half = self.possible // 2 if self.possible >= limits.SMALL_RANK else 0
        drops = self.shares[:half] / self.shares[1 : half + 1].clamp(min=1e-300)
        for index in drops.argsort(descending=True).tolist():
            rest, drop = self.shares[index + 1 :], float(drops[index])
            if drop < limits.FLOOR_DROP:
                return None
            flat = bool(rest[0] <= limits.FLOOR_FLATNESS * rest.median())
            if rest.sum() <= limits.FLOOR_SHARE and (flat or drop >= limits.CLIFF_DROP):
                return Floor(index + 1, drop, float(rest.sum()))
        return None

    @cached_property
    def alive(self) -> int:
        """Directions above the noise floor; without one, those that are not numerically empty."""
        if self.floor:
            return self.floor.kept
        return int((self.shares > limits.EMPTY * self.shares[0]).sum())

    def directions(self, share: float) -> int:
        """The fewest principal directions that hold this share of the variance."""
        if self.spread == 0:
            return 0
        return min(int((self.shares.cumsum(0) < share).sum()) + 1, self.possible)

    @cached_property
    def dead(self) -> Bool[Tensor, " d"]:
        """Dimensions that hardly vary beside the others."""
        return self.std <= limits.DEAD_STD * self.spread / math.sqrt(self.width)

    @cached_property
    def _correlations(self) -> tuple[float, Bool[Tensor, " d"]]:
        """Mean absolute correlation, and the dimensions that copy an earlier one, in one pass."""
        columns, moving = measures.standardised(self.statistics), ~measures.constant_dimensions(self.statistics)
        total, copies, alive = columns.new_zeros(()), torch.zeros_like(moving[moving]), ~self.dead[moving]
        for start, strip in measures.correlation_blocks(columns):
            total += strip.abs_().sum()
            twins = (strip > limits.COPY_CORRELATION) & alive[start : start + len(strip), None]
            copies |= twins.triu(diagonal=start + 1).any(dim=0)
        copied = torch.zeros_like(moving)
        copied[moving] = copies
        return float(measures.mean_off_diagonal(total, columns.shape[1])), copied & ~self.dead & self._supported

    @property
    def _supported(self) -> Bool[Tensor, " d"]:
        """Dimensions that enough sampled vectors move: two sparse ones may share their only active vector by chance."""
        rows = self.statistics.sample_rows
        squares = (rows - rows.mean(dim=0)).square()
        return squares.sum(dim=0).square() >= limits.COPY_SUPPORT * squares.square().sum(dim=0)

    @property
    def absolute_correlation(self) -> float:
        """Mean |correlation| of different dimensions."""
        return self._correlations[0]

    @property
    def copied(self) -> Bool[Tensor, " d"]:
        """Dimensions that repeat an earlier one, up to sign and scale."""
        return self._correlations[1]

    @cached_property
    def distances(self) -> Float[Tensor, "m m"]:
        """Distances of the sampled vectors, in units of their root mean square; zeros for a single point."""
        rows = self.statistics.sample_rows
        distances = torch.cdist(rows - rows.mean(dim=0), rows - rows.mean(dim=0))
        scale = distances.square().sum() / max(len(rows) * (len(rows) - 1), 1)
        return distances / scale.sqrt() if scale > 0 else distances

    @cached_property
    def same(self) -> float:
        """Share of the pairs of sampled vectors that are the same point."""
        size = len(self.distances)
        return float(((self.distances < limits.SAME_RADIUS).sum() - size) / max(size * (size - 1), 1))

    @cached_property
    def clusters(self) -> Clusters | None:
        """Tight groups that hold nearly all of the variance between them, found by single linkage on the sample."""
        from sklearn.cluster import DBSCAN  # slow to import, and training never comes here

        search = DBSCAN(limits.CLUSTER_RADIUS, min_samples=1, metric="precomputed")
        group = torch.from_numpy(search.fit_predict(self.distances.cpu().numpy()))
        sizes = group.bincount().to(self.distances)
        count, inside = int((sizes > 1).sum()), sizes[sizes > 1].sum()
        if count < 2 or count * limits.CLUSTER_SIZE > len(group) or inside < limits.CLUSTER_SHARE * len(group):
            return None
        member = functional.one_hot(group).to(self.distances)  # (m, groups)
        # the squared deviations from a centre sum to the squared distances of all ordered pairs over twice the size
        within = ((self.distances.square() @ member) * member).sum(dim=0) / (2 * sizes)
        share = 1 - float(within.sum() / (self.distances.square().sum() / (2 * len(group))))
        return Clusters(count, share) if share >= limits.CLUSTER_SHARE else None

    @cached_property
    def uniformity(self) -> float:
        """Of the directions of the sampled vectors: 0 where all point the same way, whatever a few do."""
        return float(measures.uniformity(measures.to_sphere(self.statistics.sample_rows)))

    @cached_property
    def outlying(self) -> float:
        """Share of the variance of the sampled vectors that the farthest hundredth of them holds."""
        rows = self.statistics.sample_rows
        squares = (rows - rows.mean(dim=0)).square().sum(dim=1)
        return float(measures.ratio(squares.topk(max(1, len(rows) // 100)).values.sum(), squares.sum()))

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every measure by name, finite and ready for JSON."""
        uncentred, variances = measures.singular_values(self.statistics, centred=False), self.singular.square()
        units = measures.to_sphere(self.statistics.sample_rows)
        found: dict[str, Tensor | float | int] = {
            "n": self.count,
            "d": self.width,
            "possible_rank": self.possible,
            "alive_directions": self.alive,
            "effective_rank": measures.entropy_rank(self.singular),
            "rankme": measures.entropy_rank(uncentred, measures.RANKME_EPS),
            "variance_rank": measures.entropy_rank(variances),
            "participation_ratio": measures.participation(variances),
            "nesum": measures.ratio(variances.sum(), variances[0]),
            "stable_rank": measures.ratio(uncentred.square().sum(), uncentred.square()[0]),
            "pseudo_condition_number": measures.ratio(uncentred[-1], uncentred[0]),
            "directions_95": self.directions(0.95),
            "directions_99": self.directions(0.99),
            "std": self.std.mean(),
            "normalised_std": measures.normalised_std(self.statistics),
            "variance_share": self.variance_share,
            "offset": self.offset,
            "absolute_correlation": self.absolute_correlation,
            "squared_correlation": measures.squared_correlation(self.statistics),
            "dead_dimensions": int(self.dead.sum()),
            "copied_dimensions": int(self.copied.sum()),
            "uniformity": self.uniformity,
            "self_cluster": measures.self_cluster(units),
        }
        found |= self._optional()
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def _optional(self) -> dict[str, Tensor | float | int]:
        found: dict[str, Tensor | float | int] = {}
        if self.alive > 2:
            last = min(100, self.alive)
            fit = measures.power_law(self.shares, first=10 if last >= 20 else 0, last=last)
            found |= {"alpha": fit.alpha}
        if self.clusters:
            found |= {"clusters": self.clusters.count}
        if self.pairs:
            found |= {"agreement": self.pairs.agreement, "alignment": self.pairs.alignment}
        return found
