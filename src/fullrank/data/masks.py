"""Masks that are pictures beside the pictures, which the paths tell: one with numbered objects, or one an object."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from fullrank.data import sidecar
from fullrank.data.annotations import Annotations
from fullrank.data.layout import is_image
from fullrank.data.objects import Objects, Painted, Stencils, boxes_of, read_index_map
from fullrank.data.sidecar import Files
from fullrank.errors import InputError

FOLDER = re.compile(r".*masks?|mask_?images?|segmentation(class|object)?s?|instances?|panoptic|ground_?truth|gt", re.I)
LOOKED, FEW, FLAT = 5, 8, 0.75  # masks that are looked at; their values, and the share of equal neighbours
ENDING = re.compile(r"[_-](masks?|labels?|seg(mentation)?|instances?|gt)$", re.I)


def pair(paths: Sequence[str]) -> dict[str, list[str]]:
    """Pictures with the masks that belong to them, by path.

    A mask lies in a folder that is called so and has the picture's name, with or without `_mask`; or the folder stands
    beside one picture's own, and holds one mask an object. Only where at least half of the masks find a picture.
    """
    images = [path for path in paths if is_image(path)]
    masks = [path for path in images if is_mask(path)]
    by_stem, by_folder = defaultdict(list), defaultdict(list)
    for path in set(images) - set(masks):
        folder, _, name = path.rpartition("/")
        by_stem[name.rpartition(".")[0]].append(path)
        by_folder[folder.rpartition("/")[0]].append(path)
    pairs = defaultdict(list)
    for path in masks:
        folder, _, name = path.rpartition("/")
        found = by_stem.get(ENDING.sub("", name.rpartition(".")[0])) or by_folder.get(folder.rpartition("/")[0], [])
        if len(found) == 1:
            pairs[found[0]].append(path)
    return dict(pairs) if 2 * sum(map(len, pairs.values())) >= max(1, len(masks)) else {}


def drawn(files: Files) -> dict[str, list[str]]:
    """As `pair`, where the first masks look like it: photographs in a folder that is called `mask` are a class."""
    pairs = pair(files.paths)
    first = [mask for some in list(pairs.values())[:LOOKED] for mask in some[:1]]
    return pairs if all(_is_flat(files, mask) for mask in first) else {}


def _is_flat(files: Files, path: str) -> bool:
    """Whether there are few values, or most pixels have that of their right neighbour; in photographs neither is so."""
    try:
        values = read_index_map(files, path)
    except InputError:  # said when it is needed
        return True
    return len(np.unique(values)) <= FEW or bool((values[:, 1:] == values[:, :-1]).mean() > FLAT)


def is_mask(path: str) -> bool:
    """Whether a picture lies in a folder of masks, or in one below."""
    return any(FOLDER.fullmatch(folder) for folder in path.split("/")[:-1])


def find(pairs: Mapping[str, Sequence[str]], files: Files, name: str) -> dict[str, list[str]]:
    """The same with the masks' paths in the files. Raises `InputError` where none is there."""
    masks = [path for path in files.paths if is_image(path)]
    places = sidecar.place({mask for some in pairs.values() for mask in some}, masks, name, files.label)
    found = {picture: [places[mask] for mask in some if mask in places] for picture, some in pairs.items()}
    return {picture: some for picture, some in found.items() if some}


def read_masks(
    name: str, pairs: Mapping[str, Sequence[str]], files: Files, splits: Mapping[str, frozenset[str]] | None = None
) -> Annotations:
    """Objects of one class, "object", each of the pixels of one number, or of one mask where a picture has several."""
    if not pairs:
        raise InputError(f"{name} names no masks")
    return Annotations(
        name,
        ["object"],
        {picture: [0] for picture in pairs},
        objects={picture: partial(_objects, files, tuple(paths)) for picture, paths in pairs.items()},
        splits=splits or {},
    )


def _objects(files: Files, paths: tuple[str, ...]) -> Objects:
    if len(paths) > 1:
        stencils = Stencils(files, paths)
        masks = stencils()
        full = np.asarray(masks.any((1, 2)))
        kept = tuple(path for path, some in zip(paths, full, strict=True) if some)
        return _of(boxes_of(masks[full]), Stencils(files, kept))
    numbers = read_index_map(files, paths[0])
    values = tuple(int(value) for value in np.unique(numbers) if value)
    return _of(boxes_of(numbers[None] == np.array(values)[:, None, None]), Painted(files, paths[0], values))


def _of(boxes: np.ndarray, masks: Painted | Stencils) -> Objects:
    return Objects(boxes, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool), masks if len(boxes) else None)
