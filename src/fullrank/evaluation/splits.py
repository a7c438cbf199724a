"""Labelled pictures in two parts: those that a classifier learns from, and those that it is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullrank.data import FROM_STREAM, open_pictures, open_source
from fullrank.data.files import ImageFiles
from fullrank.data.source import Source
from fullrank.errors import InputError

HELD_OUT = 0.2  # share of the pictures that is judged on where the data has no part of its own for it
TEST_NAMES = ("test", "val", "valid", "validation")
PEEKED = 100  # samples of a stream that say whether it has labels


@dataclass
class Part:
    """Some pictures of a source."""

    source: Source
    indices: np.ndarray

    @property
    def has_answers(self) -> bool:
        """Whether anything is known to be in any of the pictures."""
        present = 0 if self.source.targets is None else 1
        return self.source.known is None or bool((self.known >= present).any())

    def answers(self, kept: np.ndarray) -> np.ndarray:
        """What is known of the positions `kept`: labels (n,), or targets (n, classes) where a picture has several."""
        assert self.source.known is not None
        return self.source.known[kept]

    @property
    def known(self) -> np.ndarray:
        """Their labels (n,) or targets (n, classes)."""
        return self.answers(self.indices)

    def factors(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Their known generating factors, for the positions `kept`."""
        return {name: np.asarray(values)[kept] for name, values in self.source.factors.items()}


def labelled_parts(
    source: Source,
    opened: Mapping[str, Any],
    *,
    test_split: str | None = None,
    most: tuple[int, int],
    seed: int = 0,
) -> tuple[Part, Part]:
    """A part to learn from and a part to judge on, at most `most` pictures each, drawn from the seed.

    The second is `test_split`, or the data's own test part, or a fifth of the source. Pictures of which nothing is
    known are left out, and of those to learn from the ones that are judged. `opened` is what `open_pictures` was given
    for the source.

    Raises `InputError` where there are no labels, or nothing but `test_split` to learn from.
    """
    if not is_labelled(source):
        raise InputError(
            f"{source.name} has no labels: give a folder with one subfolder a class, or a file with --annotations"
        )
    chance = np.random.default_rng(seed)
    other = judged_on(source, opened, test_split, most[1])
    learnt = labelled_positions(source)
    if other is not None:
        apart = apart_from(source, learnt, other)
        if len(apart):
            learnt = apart
        elif test_split is not None:
            raise InputError(f"{source.name} has the pictures of {other.name} and no others: name another test_split")
        else:
            other = None
    if other is None:
        order = chance.permutation(learnt)
        first = max(1, round(len(learnt) * HELD_OUT))
        return Part(source, np.sort(order[first:][: most[0]])), Part(source, np.sort(order[:first][: most[1]]))
    if other.classes != source.classes:
        raise InputError(f"{other.name} and {source.name} name different classes: evaluate on parts of one data set")
    return (
        Part(source, np.sort(chance.permutation(learnt)[: most[0]])),
        Part(other, np.sort(chance.permutation(labelled_positions(other))[: most[1]])),
    )


def is_labelled(source: Source) -> bool:
    """Whether a source knows anything of its pictures."""
    return source.known is not None and bool((source.known >= 0).any())


def apart_from(source: Source, positions: np.ndarray, other: Source) -> np.ndarray:
    """The positions whose pictures are not also in another part of the same files."""
    if not isinstance(source.origin, ImageFiles):
        return positions
    judged = set(other.names)
    return np.array([place for place in positions if source.names[place] not in judged], dtype=np.int64)


def labelled_positions(source: Source) -> np.ndarray:
    """The pictures of which something is known."""
    if source.targets is not None:
        return np.flatnonzero((source.targets >= 0).any(1))
    assert source.labels is not None
    return np.flatnonzero(source.labels >= 0)


def judged_on(source: Source, opened: Mapping[str, Any], test_split: str | None, most: int) -> Source | None:
    """The part of the data that is set aside for judging, if it has one; of a stream its first `most` pictures."""
    if test_split is not None:
        return open_pictures(**{**opened, "split": test_split}, most=most)
    for name in TEST_NAMES:
        try:
            other = _open_labelled({**opened, "split": name}, most)
        except InputError:
            continue
        if other is not None and other.name != source.name:
            return other
    return None


def _open_labelled(opened: Mapping[str, Any], most: int) -> Source | None:
    """A part of the data, or None where nothing is known of its pictures: a stream is not read whole to see that."""
    found = open_source(**opened)
    if not isinstance(found, Source):
        peeked = found.first(PEEKED)
        found = found.first(most, FROM_STREAM) if is_labelled(peeked) else peeked
    return found if is_labelled(found) else None
