"""The rules, in order: from evidence to the finding of the first that applies. Their limits are in `limits`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fullrank.collapse import limits
from fullrank.collapse.evidence import Evidence
from fullrank.collapse.remedies import Cause

Name = Literal["healthy", "dimensional collapse", "complete collapse"]
Signs = Iterator[tuple[Cause, str]]  # with the sentence that says so
SEVERITY: tuple[Name, ...] = ("healthy", "dimensional collapse", "complete collapse")


@dataclass(frozen=True)
class Finding:
    """The first rule that applied: the verdict, what lies behind it, and the sentence that says so."""

    verdict: Name
    cause: Cause
    reason: str


def judge(seen: Evidence) -> Finding:
    """The finding of the first rule that applies."""
    for cause, reason in _complete(seen):  # the first decides, and what stands behind it is not asked
        return Finding("complete collapse", cause, reason)
    for cause, reason in _dimensional(seen):
        return Finding("dimensional collapse", cause, reason)
    return Finding("healthy", "none", _healthy(seen))


def _healthy(seen: Evidence) -> str:
    return (
        f"95 % of the variance of {shape(seen)} spreads over {seen.directions(0.95)} of {seen.possible} possible "
        f"directions (mean absolute correlation {seen.absolute_correlation:.2f}), and {percent(seen.variance_share)} "
        "of the mean squared length differs between vectors."
    )


def shape(seen: Evidence) -> str:
    """The name of the vectors with n x d."""
    return f"{seen.name} ({seen.count} x {seen.width})"


def percent(share: float) -> str:
    """A share in words; one near 100 % keeps the digits that differ."""
    percent = 100 * share
    if 0 < percent < 1e-6:
        return "less than 0.000001 %"
    if 99.95 <= percent < 100:
        return f"{percent:.6g} %"
    return f"{percent:.3g} %"


def _complete(seen: Evidence) -> Signs:
    """The signs that all vectors are one, the plainest first."""
    if seen.spread == 0 and seen.offset == 0:
        yield "zeros", f"every number of {shape(seen)} is zero."
    if seen.variance_share < limits.POINT_SHARE:
        yield "point", _one_point(seen)
    std = float(seen.std.mean())
    if seen.target_std is not None and std < limits.SHRUNK * seen.target_std:
        yield (
            "shrunk",
            f"{shape(seen)} has shrunk to a point: the mean standard deviation of its dimensions is {std:.2g} where "
            f"the loss asks for {seen.target_std:g}; at that scale every input gives the same vector, whatever the "
            "shape of the rest.",
        )
    if seen.on_sphere and seen.uniformity > limits.ONE_WAY:
        yield (
            "point",
            f"nearly all vectors of {shape(seen)} point the same way, and the loss sees nothing else: the cosine of "
            f"two of them is about {1 + seen.uniformity / 4:.4f}.",
        )
    if seen.same >= limits.ONE_POINT_PAIRS:
        yield (
            "outliers",
            f"{percent(seen.same**0.5)} of the vectors of {shape(seen)} are one and the same point; the variance comes "
            "from the few others.",
        )


def _one_point(seen: Evidence) -> str:
    ratio = seen.spread / seen.offset
    if ratio < limits.ROUNDING:
        return f"all vectors of {shape(seen)} are the same."
    return (
        f"all vectors of {shape(seen)} are nearly the same: they differ from their mean by {percent(ratio)} of its "
        f"length, where {percent(limits.POINT_SHARE**0.5)} is the least of a living embedding; a rank or a centred "
        "spectrum only shows the shape of what is left."
    )


def _dimensional(seen: Evidence) -> Signs:
    """The signs that the vectors differ in few ways only, the surest first."""
    clusters, floor, used = seen.clusters, seen.floor, seen.directions(0.95)
    correlation = f"(mean absolute correlation {seen.absolute_correlation:.2f})"
    if clusters and clusters.count - 1 <= limits.FEW_CLUSTERS * seen.possible:
        yield (
            "clusters",
            f"{shape(seen)} consists of {clusters.count} tight clusters that hold {percent(clusters.share)} of the "
            f"variance: a vector says which cluster, at most {math.log2(clusters.count):.1f} bits, and nothing else.",
        )
    if floor:
        yield (
            _copies_or("floor", seen),
            f"the variance of {shape(seen)} lies in {floor.kept} of {seen.possible} possible directions: there the "
            f"spectrum falls {_times(floor.drop)} to a floor that holds {percent(floor.share)} of the variance, noise "
            f"or nothing {correlation}.",
        )
    if seen.alive < limits.ALIVE_SHARE * seen.possible:
        yield (
            _copies_or("empty", seen),
            f"{shape(seen)} varies in {seen.alive} of {seen.possible} possible directions only; the others are empty.",
        )
    if used <= min(limits.FEW_DIRECTIONS, limits.FEW_SHARE * seen.possible):
        yield (
            _copies_or("few", seen),
            f"95 % of the variance of {shape(seen)} lies in {used} of {seen.possible} possible directions, "
            f"{percent(float(seen.shares[0]))} in the first alone {correlation}.",
        )
    dead, copied = int(seen.dead.sum()), int(seen.copied.sum())
    if dead + copied > (1 - limits.ALIVE_SHARE) * seen.width:
        yield (
            "dead" if dead >= copied else "copies",
            f"of the {seen.width} dimensions of {shape(seen)}, {dead} hardly ever vary and {copied} repeat another.",
        )


def _copies_or(cause: Cause, seen: Evidence) -> Cause:
    return "copies" if seen.absolute_correlation >= limits.CORRELATED else cause


def _times(drop: float) -> str:
    return f"{drop:.2g}-fold" if drop < 1e6 else "more than a millionfold"
