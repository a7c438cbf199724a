"""The rules, in order: from evidence to the finding of the first that applies. Their limits are in `limits`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fullrank.collapse import limits
from fullrank.collapse.evidence import Evidence
from fullrank.collapse.remedies import Cause

Name = Literal["healthy", "dimensional collapse", "complete collapse"]
SEVERITY: tuple[Name, ...] = ("healthy", "dimensional collapse", "complete collapse")


@dataclass(frozen=True)
class Finding:
    """The first rule that applied: the verdict, what lies behind it, and the sentence that says so."""

    verdict: Name
    cause: Cause
    reason: str


def judge(seen: Evidence) -> Finding:
    """The finding of the first rule that applies."""
    for rule in RULES:
        finding = rule(seen)
        if finding:
            return finding
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


def _zeros(seen: Evidence) -> Finding | None:
    if seen.spread > 0 or seen.offset > 0:
        return None
    return Finding("complete collapse", "zeros", f"every number of {shape(seen)} is zero.")


def _point(seen: Evidence) -> Finding | None:
    if seen.variance_share >= limits.POINT_SHARE:
        return None
    ratio = seen.spread / seen.offset
    equal = f"all vectors of {shape(seen)} are the same."
    nearly = (
        f"all vectors of {shape(seen)} are nearly the same: they differ from their mean by {percent(ratio)} of its "
        f"length, where {percent(limits.POINT_SHARE**0.5)} is the least of a living embedding; a rank or a centred "
        "spectrum only shows the shape of what is left."
    )
    return Finding("complete collapse", "point", equal if ratio < limits.ROUNDING else nearly)


def _shrunk(seen: Evidence) -> Finding | None:
    if seen.target_std is None or float(seen.std.mean()) >= limits.SHRUNK * seen.target_std:
        return None
    return Finding(
        "complete collapse",
        "shrunk",
        f"{shape(seen)} has shrunk to a point: the mean standard deviation of its dimensions is "
        f"{float(seen.std.mean()):.2g} where the loss asks for {seen.target_std:g}; at that scale every input gives "
        "the same vector, whatever the shape of the rest.",
    )


def _one_point(seen: Evidence) -> Finding | None:
    if seen.same < limits.ONE_POINT_PAIRS:
        return None
    return Finding(
        "complete collapse",
        "outliers",
        f"{percent(seen.same**0.5)} of the vectors of {shape(seen)} are one and the same point; the variance comes "
        "from the few others.",
    )


def _clusters(seen: Evidence) -> Finding | None:
    found = seen.clusters
    if found is None or found.count - 1 > limits.FEW_CLUSTERS * seen.possible:
        return None
    return Finding(
        "dimensional collapse",
        "clusters",
        f"{shape(seen)} consists of {found.count} tight clusters that hold {percent(found.share)} of the variance: "
        f"a vector says which cluster, at most {math.log2(found.count):.1f} bits, and nothing else.",
    )


def _copies(seen: Evidence, otherwise: Cause) -> Cause:
    return "copies" if seen.absolute_correlation >= limits.CORRELATED else otherwise


def _floor(seen: Evidence) -> Finding | None:
    floor = seen.floor
    if floor is None:
        return None
    return Finding(
        "dimensional collapse",
        _copies(seen, "floor"),
        f"the variance of {shape(seen)} lies in {floor.kept} of {seen.possible} possible directions: there the "
        f"spectrum falls {_times(floor.drop)} to a floor that holds {percent(floor.share)} of the variance, noise or "
        f"nothing (mean absolute correlation {seen.absolute_correlation:.2f}).",
    )


def _times(drop: float) -> str:
    return f"{drop:.2g}-fold" if drop < 1e6 else "more than a millionfold"


def _empty(seen: Evidence) -> Finding | None:
    if seen.alive >= limits.ALIVE_SHARE * seen.possible:
        return None
    return Finding(
        "dimensional collapse",
        _copies(seen, "empty"),
        f"{shape(seen)} varies in {seen.alive} of {seen.possible} possible directions only; the others are empty.",
    )


def _few(seen: Evidence) -> Finding | None:
    used = seen.directions(0.95)
    if used > min(limits.FEW_DIRECTIONS, limits.FEW_SHARE * seen.possible):
        return None
    return Finding(
        "dimensional collapse",
        _copies(seen, "few"),
        f"{used} of {seen.possible} possible directions hold 95 % of the variance of {shape(seen)}, the first alone "
        f"{percent(float(seen.shares[0]))} (mean absolute correlation {seen.absolute_correlation:.2f}).",
    )


def _dead(seen: Evidence) -> Finding | None:
    dead, copied = int(seen.dead.sum()), int(seen.copied.sum())
    if dead + copied <= (1 - limits.ALIVE_SHARE) * seen.width:
        return None
    return Finding(
        "dimensional collapse",
        "dead" if dead >= copied else "copies",
        f"of the {seen.width} dimensions of {shape(seen)}, {dead} hardly ever vary and {copied} repeat another.",
    )


RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    _zeros,
    _point,
    _shrunk,
    _one_point,
    _clusters,
    _floor,
    _empty,
    _few,
    _dead,
)
