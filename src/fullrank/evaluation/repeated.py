"""A protocol with chance in it, for several seeds: one result with means and their spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fullrank.errors import InputError
from fullrank.evaluation.protocol import Result

SPREAD = "_std"  # ends the name of a score's standard deviation over seeds


def over_seeds(judge: Callable[[int], Result], seed: int, seeds: int) -> Result:
    """The means of what `judge` gives for the seeds `seed`, `seed + 1` and so on, and what each of them gave.

    Every score `s` has its standard deviation over seeds beside it, `s_std`. Settings that seeds chose differently are
    lists.

    Args:
        judge: a seed -> its result.
        seed: the first.
        seeds: how many. One is its own result.

    Raises:
        InputError: fewer than one seed.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}: expected 1 or more")
    results = [judge(number) for number in range(seed, seed + seeds)]
    first = results[0]
    settings = {name: _one_or_all([each.settings[name] for each in results]) for name in first.settings}
    settings |= {"seed": seed, "seeds": seeds}
    if seeds == 1:
        return dataclasses.replace(first, settings=settings)
    details = {name: mean_of([each.details[name] for each in results], SPREAD) for name in first.details}
    for name in first.details:  # variants, which are judged as the quoted one is
        if len(first.details) > 1 and first.details[name].keys() == first.scores.keys():
            details |= {f"{name}, seed={seed + place}": each.details[name] for place, each in enumerate(results)}
    return dataclasses.replace(
        first,
        scores=mean_of([each.scores for each in results], SPREAD),
        n_train=max(each.n_train for each in results),
        settings=settings,
        details=details | {f"seed={seed + place}": each.scores for place, each in enumerate(results)},
        by_class=mean_of([each.by_class for each in results]),
        notes=tuple(dict.fromkeys(note for each in results for note in each.notes)),
    )


def mean_of(rows: Sequence[dict[str, float]], spread: str | None = None) -> dict[str, float]:
    """Means of scores, and where there are several of them standard deviations under names that end in `spread`."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    if spread is None or len(rows) < 2:
        return means
    return means | {f"{name}{spread}": float(np.std([row[name] for row in rows], ddof=1)) for name in names}


def _one_or_all(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else list(values)
