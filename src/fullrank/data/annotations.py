"""Labels and objects of pictures, from the files in which data sets bring them.

Tables (CSV, parquet, JSON lines) of paths and one or several labels, COCO's JSON, Pascal VOC's folders, and masks that
are pictures themselves. `open_annotations` takes a file that was named, `find_annotations` looks for them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from fullrank.data import sidecar
from fullrank.data.layout import is_hidden, suffix
from fullrank.data.objects import Objects
from fullrank.data.sidecar import Files
from fullrank.errors import InputError

log = logging.getLogger(__name__)
KINDS = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json")
TYPICAL_NAMES = re.compile(
    r"label|annotation|instances|metadata|ground.?truth|findings|data_entry|^(train|val|valid|test)\."
)
"""How files of labels are called: labels.csv, instances_val2017.json, _annotations.coco.json, train.csv."""
SPLIT = re.compile(r"(?:^|[^a-z])(train|val|valid|validation|test)(?:[^a-z]|$)")


@dataclass(frozen=True)
class Annotations:
    """What is known of pictures, by the paths that the files write.

    Attributes:
        name: of the file, for messages.
        classes: names of the labels.
        labels: positions in `classes` that a picture has.
        unsure: those that it may have: neither right nor wrong.
        several: whether a picture may have any number of labels; else it has one.
        objects: gives what is marked in a picture; None where boxes are unknown.
        splits: the pictures of every split, where the files name them.
    """

    name: str
    classes: Sequence[str]
    labels: Mapping[str, Sequence[int]]
    unsure: Mapping[str, Sequence[int]] = field(default_factory=dict)
    several: bool = True
    objects: Mapping[str, Callable[[], Objects]] | None = None
    splits: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def beside(self, folder: str, paths: Collection[str]) -> Annotations:
        """The same, where the pictures that the file names lie beside it, by their whole paths."""
        if not folder or not all(f"{folder}/{path}" in paths for path in self.labels):
            return self
        labels, unsure = (
            {f"{folder}/{path}": each for path, each in part.items()} for part in (self.labels, self.unsure)
        )
        objects = self.objects and {f"{folder}/{path}": each for path, each in self.objects.items()}
        splits = {split: frozenset(f"{folder}/{path}" for path in some) for split, some in self.splits.items()}
        return replace(self, labels=labels, unsure=unsure, objects=objects, splits=splits)

    def placed(self, paths: Sequence[str], where: str) -> Annotations:
        """The same by the paths of the pictures at hand; see `sidecar.place`."""
        places = sidecar.place(self.labels, paths, self.name, where)
        return Annotations(
            self.name,
            self.classes,
            {path: self.labels[given] for given, path in places.items()},
            {path: self.unsure[given] for given, path in places.items() if given in self.unsure},
            self.several,
            self.objects and {path: self.objects[given] for given, path in places.items() if given in self.objects},
            {
                split: frozenset(places[given] for given in some if given in places)
                for split, some in self.splits.items()
            },
        )

    def numbers(self, paths: Sequence[str]) -> np.ndarray:
        """The label of each picture, int64 (N,); -1 where it is not known."""
        return np.array([(self.labels.get(path) or (-1,))[0] for path in paths], dtype=np.int64)

    def table(self, paths: Sequence[str]) -> np.ndarray:
        """Which labels each picture has, int8 (N, classes): 1 present, 0 absent, -1 not known or unsure."""
        table = np.full((len(paths), len(self.classes)), -1, np.int8)
        for row, path in zip(table, paths, strict=True):
            if path in self.labels:
                row[:] = 0
                row[list(self.unsure.get(path, ()))] = -1
                row[list(self.labels[path])] = 1
        return table


def looks_like_annotations(path: str) -> bool:
    """Whether a file is called like one of labels or boxes."""
    name = path.rpartition("/")[2].lower()
    return suffix(name) in KINDS and bool(TYPICAL_NAMES.search(name)) and not is_hidden(path)


def open_annotations(given: str, files: Files | None, column: str | None = None) -> Annotations:
    """The annotations in a file that was named: on the disk, or among the files of the data.

    Raises `InputError` where there is no such file or it holds none.
    """
    name, content = sidecar.find_named(given, files, looks_like_annotations, "annotations")
    return read_annotations(name, content, files, column)


def find_annotations(files: Files, column: str | None = None) -> Annotations | None:
    """The annotations that the files bring: VOC's folders, else files that are called like it, else masks.

    Several files are taken together, as COCO's of train and val. One that cannot be used is logged and left aside.
    """
    from fullrank.data import masks, voc

    if voc.is_voc(files.paths):
        return voc.read_voc(files)
    found: list[Annotations] = []
    for path in filter(looks_like_annotations, files.paths):
        try:
            read = read_annotations(path, sidecar.read_inside(files, path), files, column)
            found.append(read.beside(path.rpartition("/")[0], set(files.paths)))
        except InputError as error:
            log.warning("annotations are not taken: %s", error)
    if found:
        return join(found)
    pairs = masks.drawn(files)
    return masks.read_masks("masks", pairs, files) if pairs else None


def read_annotations(name: str, content: bytes, files: Files | None = None, column: str | None = None) -> Annotations:
    """The annotations in a file. Raises `InputError` where it holds none, or too many that cannot be used.

    Args:
        name: of the file; its ending and what is inside say how it is written.
        content: of it.
        files: where masks lie that it names.
        column: of a table, the one with the labels.
    """
    from fullrank.data import coco, label_tables

    if suffix(name) == ".json":
        found = coco.read_coco(name, content)
        if found is not None:
            return found
    return label_tables.read_table(name, content, files, column)


def join(found: Sequence[Annotations]) -> Annotations:
    """Several files as one; their classes are numbered together.

    Raises `InputError` where two speak of the same picture, or one has boxes or several labels and another has not.
    """
    if len(found) == 1:
        return found[0]
    name = " and ".join(each.name for each in found)
    given = [path for each in found for path in each.labels]
    if len(set(given)) < len(given):
        raise InputError(f"{name} speak of the same pictures: name one with --annotations")
    if len({(each.several, each.objects is None) for each in found}) > 1:
        raise InputError(f"{name} are of different kinds: name one with --annotations")
    classes = list(dict.fromkeys(each for one in found for each in one.classes))
    numbers = [[classes.index(each) for each in one.classes] for one in found]
    labels, unsure = (
        {
            path: [new[label] for label in some]
            for one, new in zip(found, numbers, strict=True)
            for path, some in getattr(one, kind).items()
        }
        for kind in ("labels", "unsure")
    )
    objects = {
        path: partial(_renumbered, load, np.array(new, dtype=np.int64))
        for one, new in zip(found, numbers, strict=True)
        for path, load in (one.objects or {}).items()
    }
    splits: dict[str, frozenset[str]] = {}
    for one in found:
        for split, some in one.splits.items():
            splits[split] = splits.get(split, frozenset()) | some
    return Annotations(name, classes, labels, unsure, found[0].several, objects or None, splits)


def _renumbered(load: Callable[[], Objects], numbers: np.ndarray) -> Objects:
    found = load()
    return replace(found, labels=numbers[found.labels])


def split_in_name(name: str) -> str | None:
    """The split that a file's name speaks of, as `instances_val2017.json` does."""
    found = SPLIT.search(name.lower())
    return found[1] if found else None


def note_wrong(name: str, wrong: Sequence[str], count: int, what: str) -> None:
    """Log what had to be left out of a file. Raises `InputError` where it is more than a tenth of `count`."""
    if len(wrong) > sidecar.MAX_WRONG * count:
        raise InputError(f"{name}: {len(wrong):,} of {count:,} {what} cannot be used: {sidecar.some(wrong)}")
    if wrong:
        log.warning("%s: left out %d of %s %s: %s", name, len(wrong), f"{count:,}", what, sidecar.some(wrong))
