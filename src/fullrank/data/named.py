"""Data sets that are called by a name: scikit-learn's digits and what torchvision knows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from fullrank.data.arrays import Arrays
from fullrank.data.decode import array_of, explain, native
from fullrank.data.npy import channels_last
from fullrank.data.source import Source, UnreadableImage
from fullrank.errors import InputError, unknown

ANNOTATED = ("VOCDetection", "CocoDetection")
TORCHVISION_ROOT = Path("~/.cache/fullrank/torchvision")
DIGITS_TRAIN = 1437
"""Of 1797.  The set is ordered by writer, so that the last fifth is by hands that training did not see."""


def open_digits(split: str | None) -> Arrays:
    """scikit-learn's handwritten digits, 8 x 8 pixels, uint8 (N, 8, 8): `train` (the default) and `test`."""
    from sklearn.datasets import load_digits  # slow to import

    split = split or "train"
    if split not in ("train", "test"):
        raise unknown("split of digits", split, ["train", "test"])
    digits = load_digits()
    part = slice(0, DIGITS_TRAIN) if split == "train" else slice(DIGITS_TRAIN, None)
    images = (digits.images[part] * (255 / 16)).round().astype(np.uint8)
    return Arrays(images, digits.target[part], f"digits[{split}]", [str(i) for i in range(10)])


def open_torchvision(spec: str, split: str | None) -> Source:
    """`NAME` or `NAME@root`, such as `CIFAR10@/data`; downloads where torchvision offers to."""
    name, _, root = spec.partition("@")
    kind = _torchvision_class(name)
    if name in ANNOTATED:
        return _open_annotated(name, Path(root or TORCHVISION_ROOT).expanduser(), split)
    options = _torchvision_options(kind, name, Path(root or TORCHVISION_ROOT).expanduser(), split)
    try:
        dataset = _present_or_downloaded(kind, options)
    except TypeError as error:
        message = f"torchvision:{name} needs more than a root and a split: {error}; open it in Python"
        raise InputError(message) from error
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        raise InputError(f"torchvision:{name} cannot be opened: {' '.join(str(error).split())}") from error
    return TorchvisionSet(dataset, f"torchvision:{name}" + (f"[{split}]" if split else ""))


def _present_or_downloaded(kind: Any, options: dict[str, Any]) -> Any:
    """The set that is there; one that is not is downloaded, where torchvision offers to."""
    if "download" not in options:
        return kind(**options)
    try:
        return kind(**options | {"download": False})
    except RuntimeError:  # torchvision's word for what is not there
        return kind(**options)


def _open_annotated(name: str, root: Path, split: str | None) -> Source:
    """VOC and COCO in the folders that torchvision reads, with their boxes; VOC 2007 and 2012 side by side are one."""
    from fullrank.data.files import FOUND, Folder, ImageFiles

    if not root.is_dir() or not any(root.iterdir()):
        raise InputError(f"torchvision:{name} reads {root}, which is not there: put the set there, or add @FOLDER")
    source = ImageFiles(Folder(root.absolute()), split, annotations=FOUND)
    if source.objects is None:
        raise InputError(f"torchvision:{name}: {root} holds no boxes in the format of {name}")
    return source


def _torchvision_class(name: str) -> Any:
    known = {n: getattr(torchvision.datasets, n) for n in torchvision.datasets.__all__}
    if name not in known:
        raise unknown("torchvision data set", name, known)
    return known[name]


def _torchvision_options(kind: Any, name: str, root: Path, split: str | None) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root)} if "root" in parameters else {}
    if "download" in parameters:
        options["download"] = True
        root.mkdir(parents=True, exist_ok=True)
    if "train" in parameters:
        if split not in (None, "train", "test"):
            raise unknown(f"split of torchvision:{name}", split, ["train", "test"])
        options["train"] = split != "test"
    elif split is not None and "version" in parameters:  # of INaturalist: 2018, 2021_train, 2021_valid, ...
        options["version"] = split
    elif split is not None and "split" in parameters:
        options["split"] = split
    elif split is not None:
        raise InputError(f"torchvision:{name} has no splits; leave --split out")
    return options


class TorchvisionSet(Source):
    """A torchvision data set whose items are (picture, target)."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        labels = _labels_of(dataset)
        found = getattr(dataset, "classes", None)
        classes = [str(c) for c in found] if labels is not None and isinstance(found, Sequence) else []
        if labels is not None and not classes:
            classes = [str(i) for i in range(int(labels.max(initial=-1)) + 1)]
        super().__init__(name, range(len(dataset)), labels, classes)

    def read(self, index: int) -> np.ndarray:
        """(H, W, C)."""
        try:
            picture = self._dataset[index][0]
            array = array_of(picture) if isinstance(picture, Image.Image) else np.asarray(picture)
            return native(channels_last(array))
        except Exception as error:  # whatever its loader raises
            raise UnreadableImage(self.names[index], explain(error)) from error


def _labels_of(dataset: Any) -> np.ndarray | None:
    """Integer labels under one of the names that torchvision's sets use."""
    index = getattr(dataset, "index", None)
    if isinstance(index, list) and index and isinstance(index[0], tuple):  # INaturalist: category and file
        return np.array([category for category, _ in index], dtype=np.int64)
    for attribute in ("targets", "labels", "_labels", "y"):
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            labels = found.numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
            return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else None
    return None
