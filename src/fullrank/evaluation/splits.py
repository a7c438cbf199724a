"""Labelled pictures in two parts: those that a classifier learns from, and those that it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fullrank.data import open_pictures
from fullrank.data.source import Source
from fullrank.errors import InputError

HELD_OUT = 0.2  # share of the pictures that is judged on where the data has no part of its own for it
TEST_NAMES = ("test", "val", "valid", "validation")


@dataclass
class Part:
    """Some pictures of a source."""

    source: Source
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Their labels, int64 (n,)."""
        assert self.source.labels is not None
        return self.source.labels[self.indices]

    def factors(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Their known generating factors, for the positions `kept`."""
        return {name: np.asarray(values)[kept] for name, values in self.source.factors.items()}


def labelled_parts(
    source: Source,
    data: Any,
    *,
    test_split: str | None = None,
    include: str | None = None,
    most: tuple[int, int],
    seed: int = 0,
) -> tuple[Part, Part]:
    """A part to learn from and a part to judge on, at most `most` pictures each, drawn from the seed.

    The second is `test_split`, or the data's own test part, or a fifth of the source.
    Raises `InputError` where there are no labels.
    """
    if source.labels is None:
        raise InputError(f"{source.name} has no labels: give a folder with one subfolder a class")
    chance = np.random.default_rng(seed)
    other = judged_on(source, data, test_split, include)
    if other is None:
        order = chance.permutation(len(source))
        first = max(1, round(len(source) * HELD_OUT))
        return Part(source, np.sort(order[first:][: most[0]])), Part(source, np.sort(order[:first][: most[1]]))
    if other.classes != source.classes:
        raise InputError(f"{other.name} and {source.name} name different classes: evaluate on parts of one data set")
    return (
        Part(source, np.sort(chance.permutation(len(source))[: most[0]])),
        Part(other, np.sort(chance.permutation(len(other))[: most[1]])),
    )


def judged_on(source: Source, data: Any, test_split: str | None, include: str | None) -> Source | None:
    """The part of the data that is set aside for judging, if it has one."""
    if test_split is not None:
        return open_pictures(data, test_split, include)
    for name in TEST_NAMES:
        try:
            other = open_pictures(data, name, include)
        except InputError:
            continue
        if other.labels is not None and other.name != source.name:
            return other
    return None
