"""Which training pictures fine-tuning may use: a list of files, or the same share of every class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fullrank.data import sidecar
from fullrank.errors import InputError


def share_of_classes(labels: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Positions of `percent` of every class, at least one of each, drawn from the seed, in order, int64 (k,).

    Raises `InputError` for a share that is none, or so small that a class of more than one picture has less than a
    whole one.
    """
    if not 0 < percent <= 100:
        raise InputError(f"percent is {percent:g}: expected more than 0 and at most 100")
    chance = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels[labels >= 0]):
        own = np.flatnonzero(labels == label)
        wanted = round(len(own) * percent / 100)
        if wanted < 1:
            raise InputError(
                f"{percent:g} % of the {len(own)} pictures of class {label} is less than one: give a larger percent"
            )
        chosen.append(chance.permutation(own)[:wanted])
    return np.sort(np.concatenate(chosen))


def share_of_targets(targets: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """The same where a picture may have several labels, targets (n, classes): `percent` of all pictures, int64 (k,).

    Rare classes choose first: each has at least its share, rounded, and one picture. Pictures of several classes serve
    all of them; the others are filled up at random.
    """
    if not 0 < percent <= 100:
        raise InputError(f"percent is {percent:g}: expected more than 0 and at most 100")
    order = np.random.default_rng(seed).permutation(len(targets))
    chosen = np.zeros(len(targets), bool)
    counts = (targets == 1).sum(0)
    for column in np.argsort(counts, kind="stable"):
        own = order[targets[order, column] == 1]
        lacking = max(round(len(own) * percent / 100), min(1, len(own))) - int(chosen[own].sum())
        chosen[own[~chosen[own]][: max(0, lacking)]] = True
    lacking = round(len(targets) * percent / 100) - int(chosen.sum())
    rest = order[~chosen[order]]
    chosen[rest[: max(0, lacking)]] = True
    return np.flatnonzero(chosen)


def listed(path: Path, names: Sequence[str], where: str) -> np.ndarray:
    """Positions of the pictures that a file lists, one path a line, such as the official 1 % of ImageNet; int64 (k,).

    A line may be followed by its label. Raises `InputError` where there is no file, or it lists none of the pictures.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"subset {path}: {error.strerror}") from error
    given = [line.split()[0] for line in lines if line.strip()]
    if not given:
        raise InputError(f"subset {path} lists nothing: expected one picture a line")
    position = {name: place for place, name in enumerate(names)}
    places = sidecar.place(given, names, path.name, where)
    return np.unique([position[place] for place in places.values()])
