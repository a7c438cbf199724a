"""What is worth knowing about an embedding and changes no verdict."""

from __future__ import annotations

from collections.abc import Callable

from fullrank.collapse import limits
from fullrank.collapse.evidence import Evidence
from fullrank.collapse.rules import Name, percent, shape


def remarks(seen: Evidence, verdict: Name) -> list[str]:
    """Everything that applies and that the verdict has not said already, most useful first."""
    looks = ALWAYS + (ALIVE if verdict != "complete collapse" else ()) + (HEALTHY if verdict == "healthy" else ())
    return [text for look in looks if (text := look(seen))]


def _disagreement(seen: Evidence) -> str | None:
    if seen.pairs is None or seen.pairs.agreement >= limits.UNRELATED:
        return None
    return (
        f"the two views of a sample share {percent(max(seen.pairs.agreement, 0.0))} of their variance, no more than "
        "views of different samples: what varies is noise. Weaken the augmentations, train longer, or check that "
        "the rows of the two arrays belong together."
    )


def _identical(seen: Evidence) -> str | None:
    if seen.pairs is None or 1 - seen.pairs.agreement > limits.IDENTICAL or seen.spread == 0:
        return None
    return (
        "the two views are the same vectors: the augmentations change nothing, or one array was given twice, so "
        "nothing can be said about invariance."
    )


def _outlying(seen: Evidence) -> str | None:
    if seen.outlying <= limits.OUTLYING or seen.count < limits.MANY:
        return None
    return (
        f"the farthest hundredth of the vectors of {seen.name} holds {percent(seen.outlying)} of the variance: look at "
        "those samples and diagnose again without them, as every measure of variance is about them."
    )


def _dead(seen: Evidence) -> str | None:
    dead = int(seen.dead.sum())
    if not 0 < dead <= seen.width / 2:
        return None
    return f"{dead} of {seen.width} dimensions of {seen.name} are dead: they vary less than 0.1 % of the average one."


def _copied(seen: Evidence) -> str | None:
    copied = int(seen.copied.sum())
    if not 0 < copied <= seen.width / 2:
        return None
    return (
        f"{copied} of {seen.width} dimensions of {seen.name} are duplicates: each repeats an earlier one "
        "(correlation above 0.999)."
    )


def _empty(seen: Evidence) -> str | None:
    missing = seen.possible - seen.alive
    known = int(seen.dead.sum()) + int(seen.copied.sum())
    if missing <= known:
        return None
    return f"{missing} of {seen.possible} possible directions of {seen.name} are empty."


def _narrow(seen: Evidence) -> str | None:
    used = seen.directions(0.95)
    if used > limits.NARROW * seen.possible or seen.possible < limits.MANY:
        return None
    return (
        f"95 % of the variance of {seen.name} lies in {used} of {seen.possible} possible directions, without an edge: "
        "honest for data with few factors of variation or early in training; more width will not add information."
    )


def _one_direction(seen: Evidence) -> str | None:
    first = float(seen.shares[0])
    if first < limits.ONE_DIRECTION or seen.possible < limits.MANY:
        return None
    return f"one direction alone holds {percent(first)} of the variance of {seen.name}: standardise before comparing."


def _far(seen: Evidence) -> str | None:
    if seen.variance_share >= limits.FAR_OFFSET or seen.variance_share == 0:
        return None
    ratio = seen.offset / seen.spread
    return (
        f"the mean of {seen.name} is {ratio:.3g} times as long as the spread around it: subtract it before cosine "
        "similarities or RankMe, which otherwise see the mean and little else."
    )


def _small(seen: Evidence) -> str | None:
    std = float(seen.std.mean())
    unit = abs(seen.spread**2 + seen.offset**2 - 1) < 1e-3  # on the unit sphere the std is small by construction
    if seen.target_std is not None or unit or not 0 < std < limits.SMALL_STD:
        return None
    return (
        f"the mean standard deviation of {shape(seen)} is {std:.2g}. Every verdict but this one ignores the scale: if "
        "the loss fixes it (VICReg asks for 1), this is complete collapse; say so with target_std=1."
    )


def _few_vectors(seen: Evidence) -> str | None:
    if seen.count > seen.width:
        return None
    return (
        f"{seen.count} vectors show at most {seen.possible} of the {seen.width} directions of {seen.name}: the verdict "
        f"is about those. Give more than {seen.width} vectors to see them all."
    )


Look = Callable[[Evidence], str | None]
ALWAYS: tuple[Look, ...] = (_disagreement, _identical, _outlying)
ALIVE: tuple[Look, ...] = (_dead, _far, _small, _few_vectors)
HEALTHY: tuple[Look, ...] = (_copied, _empty, _narrow, _one_direction)
