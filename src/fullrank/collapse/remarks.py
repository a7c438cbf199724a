"""What is worth knowing about an embedding and changes no verdict."""

from __future__ import annotations

from collections.abc import Iterator

from fullrank.collapse import limits
from fullrank.collapse.evidence import Evidence
from fullrank.collapse.rules import Name, percent, shape


def remarks(seen: Evidence, verdict: Name) -> list[str]:
    """Everything that applies and that the verdict has not said already, most useful first."""
    found = list(_samples(seen))
    if verdict != "complete collapse":
        found += _scale(seen)
    if verdict == "healthy":
        found += _directions(seen)
    return found


def _samples(seen: Evidence) -> Iterator[str]:
    """Views that share nothing or everything, and vectors that outweigh all others."""
    agreement = seen.pairs.agreement if seen.pairs else None
    if agreement is not None and agreement < limits.UNRELATED:
        yield (
            f"the two views of a sample share {percent(max(agreement, 0.0))} of their variance, no more than views of "
            "different samples: what varies is noise. Weaken the augmentations, train longer, or check that the rows "
            "of the two arrays belong together."
        )
    if agreement is not None and 1 - agreement <= limits.IDENTICAL and seen.spread > 0:
        yield (
            "the two views are the same vectors: the augmentations change nothing, or one array was given twice, so "
            "nothing can be said about invariance."
        )
    if seen.outlying > limits.OUTLYING and seen.count >= limits.MANY:
        yield (
            f"the farthest hundredth of the vectors of {seen.name} holds {percent(seen.outlying)} of the variance: "
            "look at those samples and diagnose again without them, as every measure of variance is about them."
        )


def _scale(seen: Evidence) -> Iterator[str]:
    """Dead dimensions, an offset, an unknown scale, and too few vectors to see every direction."""
    dead, std = int(seen.dead.sum()), float(seen.std.mean())
    if 0 < dead <= seen.width / 2:
        yield (
            f"{dead} of {seen.width} dimensions of {seen.name} are dead: they vary less than 0.1 % of the average one."
        )
    if 0 < seen.variance_share < limits.FAR_OFFSET:
        yield (
            f"the mean of {seen.name} is {seen.offset / seen.spread:.3g} times as long as the spread around it: "
            "subtract it before cosine similarities or RankMe, which otherwise see the mean and little else."
        )
    unit = abs(seen.spread**2 + seen.offset**2 - 1) < 1e-3  # on the unit sphere the std is small by construction
    if seen.target_std is None and not unit and 0 < std < limits.SMALL_STD:
        yield (
            f"the mean standard deviation of {shape(seen)} is {std:.2g}. Every verdict but this one ignores the scale: "
            "if the loss fixes it (VICReg asks 1 of Z), this is complete collapse: say so with --target_std 1."
        )
    if seen.count <= seen.width:
        yield (
            f"{seen.count} vectors show at most {seen.possible} of the {seen.width} directions of {seen.name}: the "
            f"verdict is about those. Give more than {seen.width} vectors to see them all."
        )


def _directions(seen: Evidence) -> Iterator[str]:
    """What a healthy embedding still leaves unused."""
    dead, copied, used = int(seen.dead.sum()), int(seen.copied.sum()), seen.directions(0.95)
    first, empty = float(seen.shares[0]), seen.possible - seen.alive
    if 0 < copied <= seen.width / 2:
        yield (
            f"{copied} of {seen.width} dimensions of {seen.name} are duplicates: each repeats an earlier one "
            "(correlation above 0.999)."
        )
    if empty > dead + copied:
        yield f"{empty} of {seen.possible} possible directions of {seen.name} are empty."
    if seen.possible < limits.MANY:
        return
    if used <= limits.NARROW * seen.possible:
        yield (
            f"95 % of the variance of {seen.name} lies in {used} of {seen.possible} possible directions, without an "
            "edge: honest for data with few factors of variation or early in training; more width will not add "
            "information."
        )
    if first >= limits.ONE_DIRECTION:
        yield (
            f"one direction alone holds {percent(first)} of the variance of {seen.name}: standardise before comparing."
        )
