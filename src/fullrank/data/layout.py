"""What the paths of a folder or an archive say: which are pictures, splits and classes."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fullrank.errors import InputError, unknown

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".npy", ".webp"]) | {
    *(".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif")
}
SPLIT_NAMES = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])


class Layout(NamedTuple):
    """The pictures of one split, in order, and the classes that their folders name."""

    names: list[str]
    labels: np.ndarray | None
    classes: list[str]
    split: str | None


def suffix(name: str) -> str:
    """The ending of a file name in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    """Whether a path is taken for a picture: by its ending, and not hidden."""
    return suffix(name) in IMAGE_SUFFIXES and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether some part of the path is one that file systems keep for themselves."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def arrange(where: str, names: Sequence[str], split: str | None, include: str | None) -> Layout:
    """Choose the pictures of a split and label them by their folders.

    Folders that hold everything are passed over.  Where train/ and another split stand side by side and
    none is asked for, train is used.  Classes are the top folders of the split, when every picture lies in
    one and there are at least two; they are numbered over all splits together, so that numbers agree.

    Args:
        where: what messages call the data.
        names: paths of pictures with forward slashes.
        split: a folder such as `train`, or None.
        include: a pattern such as `*.tif` that paths must match, or None for all.
    """
    kept = sorted(name for name in names if include is None or fnmatch.fnmatchcase(name, include))
    if not kept:
        raise InputError(f"{where}: none of {len(names)} pictures matches include '{include}', such as '{names[0]}'")
    folders = [name.split("/")[:-1] for name in kept]
    depth = _shared_depth(folders)
    chosen = _choose_split(where, folders, depth, split)
    if chosen is None or chosen in folders[0][:depth]:
        labels, classes = _label(folders, [])
        return Layout(kept, labels, classes, chosen)
    inside = [i for i, parts in enumerate(folders) if parts[depth : depth + 1] == [chosen]]
    others = [p for p in folders if len(p) > depth and p[depth] in SPLIT_NAMES - {chosen}]
    below = [folders[i][depth + 1 :] for i in inside]
    labels, classes = _label(below, [parts[depth + 1 :] for parts in others])
    return Layout([kept[i] for i in inside], labels, classes, chosen)


def _shared_depth(folders: list[list[str]]) -> int:
    """How many leading folders all paths share."""
    first, last = min(folders), max(folders)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _choose_split(where: str, folders: list[list[str]], depth: int, split: str | None) -> str | None:
    present = {parts[depth] for parts in folders if len(parts) > depth}
    if split is None:
        found = sorted(present & SPLIT_NAMES)
        return next((name for name in ("train", "training") if name in found and len(found) > 1), None)
    if split in present or split in folders[0][:depth]:
        return split
    if not present:
        raise InputError(f"{where} has no folder '{split}': its pictures lie in one folder; leave the split out")
    raise unknown(f"split of {where}", split, present)


def _label(folders: list[list[str]], elsewhere: list[list[str]]) -> tuple[np.ndarray | None, list[str]]:
    depth = _shared_depth(folders)
    if any(len(parts) <= depth for parts in folders):
        return None, []
    named = {parts[depth] for parts in folders}
    classes = sorted(named | {parts[depth] for parts in elsewhere if len(parts) > depth})
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[parts[depth]] for parts in folders], dtype=np.int64), classes
