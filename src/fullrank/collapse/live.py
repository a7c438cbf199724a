"""For use in training: three cheap measures of a batch, and warnings in words when their course shows a collapse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.collapse import limits
from fullrank.collapse.measures import entropy_rank
from fullrank.collapse.remedies import Settings, precision, slower, strengthen

ROWS = 256  # vectors looked at: the effective rank of a batch costs ROWS^2 (d + ROWS)
COLUMNS = 256  # dimensions whose correlations are averaged: 33,000 pairs estimate the mean well

Measurement = Mapping[str, Any]
Course = list[tuple[Any, float]]  # (step, value)
Look = Callable[[str, Course, Settings], str | None]


@torch.no_grad()
def live_measures(vectors: Float[Tensor, "n d"]) -> dict[str, float]:
    """Effective rank (centred), mean std and mean absolute correlation of a batch, in a few milliseconds.

    The first 256 vectors and, for the correlation, at most 256 evenly spaced dimensions are looked at. NaN for each
    when the vectors are not finite or fewer than two: training decides what that means.
    """
    rows = vectors.detach()[:ROWS].to(torch.float64 if vectors.device.type != "mps" else torch.float32)
    if len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        return {"effective_rank": math.nan, "std": math.nan, "correlation": math.nan}
    rows = rows - rows.mean(dim=0)
    gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    singular = torch.linalg.eigvalsh(gram.cpu()).clamp(min=0).sqrt()  # so small a matrix takes a GPU longer
    std = (rows.square().sum(dim=0) / (len(rows) - 1)).sqrt()
    return {
        "effective_rank": float(entropy_rank(singular)),
        "std": float(std.mean()),
        "correlation": _correlation(rows),
    }


def _correlation(centred: Float[Tensor, "n d"]) -> float:
    step = -(-centred.shape[1] // COLUMNS)
    columns = centred[:, ::step]
    norms = columns.norm(dim=0)
    columns = (columns / norms)[:, norms > 0]
    table = (columns.T @ columns).abs_().fill_diagonal_(0)
    return float(table.sum() / max(len(table) * (len(table) - 1), 1))


def warn(history: Sequence[Measurement], settings: Settings) -> list[str]:
    """What a user should be told after the newest live measurement: empty when all is well.

    Args:
        history: one mapping a measurement, oldest first, with `step` and any of `Y_effective_rank`, `Z_effective_rank`,
            `Y_std`, `Z_std`, `Y_correlation`, `Z_correlation`; missing or empty values are passed over.
        settings: of the run, for words that name them: `variance`, `covariance`, `learning_rate`, `warmup_epochs`,
            `precision`.

    A warning is given at the measurement where the sign first shows, not again while it lasts.
    """
    seen = [signs(history[:length], settings) for length in (len(history) - 1, len(history))]
    return [text for sign, text in seen[1].items() if sign not in seen[0]]


def signs(history: Sequence[Measurement], settings: Settings) -> dict[str, str]:
    """Every sign of collapse that the newest measurement shows, with its words."""
    found: dict[str, str] = {}
    for name in ("Z", "Y"):
        for measure, look in LOOKS.items():
            course = _course(history, f"{name}_{measure}")
            text = look(name, course, settings) if course else None
            if text:
                found[f"{name} {measure}"] = text
    return found


def _course(history: Sequence[Measurement], column: str) -> Course:
    """(step, value) of every measurement that has one, NaN included; empty where the newest has none."""
    rows = [(row.get("step", "?"), row.get(column)) for row in history]
    known = [(step, float(value)) for step, value in rows if value not in (None, "")]
    return known if rows and rows[-1][1] not in (None, "") else []


def _shrinking(name: str, course: Course, settings: Settings) -> str | None:
    (first_step, first), (step, now) = course[0], course[-1]
    if math.isnan(now):
        return f"{name} holds NaN or infinite values at step {step}: {slower(settings)}.{precision(settings)}"
    if now >= limits.SHRINKING * first:
        return None
    return (
        f"{name} shrinks: its mean standard deviation is {now:.2g} at step {step}, {first:.2g} at step {first_step}. "
        f"Complete collapse begins: {strengthen('variance', settings)}"
    )


def _correlating(name: str, course: Course, settings: Settings) -> str | None:
    step, now = course[-1]
    if not now >= limits.REPEATING:
        return None
    return (
        f"the dimensions of {name} repeat one another: mean absolute correlation {now:.2f} at step {step}. "
        f"Dimensional collapse begins: {strengthen('covariance', settings)}"
    )


def _narrowing(name: str, course: Course, settings: Settings) -> str | None:
    (step, now), best = course[-1], max(value for _, value in course)
    if not now < limits.RANK_LOST * best:
        return None
    return (
        f"{name} loses its directions: effective rank {now:.3g} at step {step}, {best:.3g} at its best. "
        f"Dimensional collapse begins: {strengthen('covariance', settings)}"
    )


LOOKS: dict[str, Look] = {"std": _shrinking, "correlation": _correlating, "effective_rank": _narrowing}
