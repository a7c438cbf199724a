"""Pascal VOC's folders: JPEGImages, Annotations with a file a picture, ImageSets/Main with the splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from xml.etree import ElementTree

import numpy as np

from fullrank.data.annotations import Annotations, note_wrong
from fullrank.data.coco import cut_box
from fullrank.data.objects import Objects
from fullrank.data.sidecar import Files, read_inside

ANNOTATION = re.compile(r"(?:^|/)annotations/[^/]+\.xml$", re.IGNORECASE)
SPLIT = re.compile(r"(?:^|/)ImageSets/Main/([a-z]+)\.txt$")
UNSAFE = re.compile(rb"<!(DOCTYPE|ENTITY)")

Marked = tuple[list[float], str, bool]  # box, class, whether it is difficult


def is_voc(paths: Sequence[str]) -> bool:
    """Whether there are annotations as VOC has them."""
    return any(ANNOTATION.search(path) for path in paths)


def read_voc(files: Files) -> Annotations:
    """All annotations; classes are numbered by their names, and `trainval` is train and val where it is not listed.

    Boxes count pixels from 1 and hold their last one; here from 0, the last one exclusive. Objects that are marked as
    difficult are neither right nor wrong. Raises `InputError` where more than a tenth of the files or boxes cannot be
    used.
    """
    places = [path for path in files.paths if ANNOTATION.search(path)]
    marked: dict[str, list[Marked]] = {}
    wrong: list[str] = []
    boxes = 0
    for path in places:
        try:
            name, found, odd = _read(read_inside(files, path), path)
        except ValueError as error:
            wrong.append(f"{path}: {error}")
            continue
        marked[name] = found
        boxes += len(found)
        wrong += odd
    note_wrong("Annotations/", wrong, len(places) + boxes, "files and boxes")
    classes = sorted({label for found in marked.values() for _, label, _ in found})
    number = {label: place for place, label in enumerate(classes)}
    sure = {name: {number[label] for _, label, hard in found if not hard} for name, found in marked.items()}
    hard = {name: {number[label] for _, label, hard in found if hard} - sure[name] for name, found in marked.items()}
    return Annotations(
        f"{places[0].rpartition('/')[0]}/",
        classes,
        {name: sorted(some) for name, some in sure.items()},
        {name: sorted(some) for name, some in hard.items()},
        objects={name: partial(_objects, found, number) for name, found in marked.items()},
        splits=_splits(files, marked),
    )


def _read(content: bytes, path: str) -> tuple[str, list[Marked], list[str]]:
    """The picture's name without its ending, its objects, and what was wrong with others."""
    if UNSAFE.search(content):
        raise ValueError("it defines entities, which no annotation needs")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML ({error})") from error
    width, height = (float(root.findtext(f"size/{side}") or 0) or None for side in ("width", "height"))
    found, odd = [], []
    for each in root.iter("object"):
        box = each.find("bndbox")
        try:
            if box is None:
                raise ValueError("an object has no bndbox")
            left, top, right, bottom = (float(box.findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
            cut = cut_box([left - 1, top - 1, right, bottom], width, height)
        except ValueError as error:
            odd.append(f"{path}: {error}")
            continue
        found.append((cut, (each.findtext("name") or "").strip(), (each.findtext("difficult") or "0").strip() == "1"))
    return path.rpartition("/")[2].removesuffix(".xml").removesuffix(".XML"), found, odd


def _splits(files: Files, known: dict[str, list[Marked]]) -> dict[str, frozenset[str]]:
    splits: dict[str, frozenset[str]] = defaultdict(frozenset)
    for path in files.paths:
        found = SPLIT.search(path)
        if found:  # names, in some files followed by 1 or -1
            names = {line.split()[0] for line in read_inside(files, path).decode().splitlines() if line.strip()}
            splits[found[1]] |= frozenset(names & known.keys())
    if "train" in splits and "val" in splits and "trainval" not in splits:
        splits["trainval"] = splits["train"] | splits["val"]
    return {split: names for split, names in splits.items() if names}


def _objects(marked: Sequence[Marked], number: dict[str, int]) -> Objects:
    if not marked:
        return Objects()
    boxes, names, hard = zip(*marked, strict=True)
    labels = np.array([number[name] for name in names], np.int64)
    return Objects(np.array(boxes, np.float32), labels, np.array(hard, bool))
