"""What is marked in a picture: boxes with a class, and where asked for the pixels of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from fullrank.data.sidecar import Files
from fullrank.errors import InputError

Segmentation = list[list[float]] | Mapping[str, Any]  # COCO's polygons, or run lengths


@dataclass(frozen=True)
class Objects:
    """The objects of one picture.

    Attributes:
        boxes: float32 (k, 4), left, top, right and bottom in pixels, the latter two exclusive.
        labels: int64 (k,), positions in the set's `classes`.
        ignored: bool (k,), crowds and what is marked as difficult: finding them is neither right nor wrong.
        masks: gives bool (k, H, W), or None where only boxes are known.
        crowds: bool (k,), boxes around many, from which nothing is learnt; None where there are none.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ignored: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    masks: Callable[[], np.ndarray] | None = None
    crowds: np.ndarray | None = None

    @property
    def single(self) -> np.ndarray:
        """Bool (k,), all but crowds."""
        return np.ones(len(self), bool) if self.crowds is None else ~self.crowds

    def __len__(self) -> int:
        return len(self.labels)

    def inside(self, height: int, width: int) -> Objects:
        """With boxes cut at the border of a picture of that size, without those of which nothing is left.

        Formats that say sizes are cut when they are read; a table of boxes may say none.
        """
        boxes = self.boxes.clip(0, np.array([width, height] * 2, np.float32))
        left = (boxes[:, 2:] > boxes[:, :2]).all(1)
        masks, crowds = self.masks, self.crowds
        return Objects(
            boxes[left],
            self.labels[left],
            self.ignored[left],
            None if masks is None else lambda: masks()[left],
            None if crowds is None else crowds[left],
        )


@dataclass(frozen=True)
class Drawn:
    """Masks that are drawn as polygons or written as run lengths.

    Attributes:
        segmentations: one an object.
        height: of the picture.
        width: of the picture.
    """

    segmentations: Sequence[Segmentation]
    height: int
    width: int

    def __call__(self) -> np.ndarray:
        """Bool (k, H, W). Raises `InputError` without pycocotools."""
        coco = pycocotools_mask()
        masks = np.zeros((len(self.segmentations), self.height, self.width), bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its arrays lack a keyword of NumPy 2
            for mask, drawn in zip(masks, self.segmentations, strict=True):
                if isinstance(drawn, Mapping) and isinstance(drawn["counts"], str | bytes):
                    encoded = drawn
                else:
                    parts = coco.frPyObjects(drawn, self.height, self.width)
                    encoded = coco.merge(parts) if isinstance(parts, list) else parts
                mask[:] = coco.decode(encoded).astype(bool)
        return masks


@dataclass(frozen=True)
class Painted:
    """Masks in a picture beside the picture: pixels of value k are object k, 0 is nothing.

    Attributes:
        files: where the picture lies.
        path: its path there.
        values: of the objects.
    """

    files: Files
    path: str
    values: tuple[int, ...]

    def __call__(self) -> np.ndarray:
        """Bool (k, H, W)."""
        return read_index_map(self.files, self.path)[None] == np.array(self.values)[:, None, None]


@dataclass(frozen=True)
class Stencils:
    """Masks in a picture each: all that is not 0 is the object.

    Attributes:
        files: where they lie.
        paths: one an object.
    """

    files: Files
    paths: tuple[str, ...]

    def __call__(self) -> np.ndarray:
        """Bool (k, H, W)."""
        return np.stack([read_index_map(self.files, path) > 0 for path in self.paths])


def read_index_map(files: Files, path: str) -> np.ndarray:
    """The numbers in a picture of masks, (H, W); of a coloured one each colour is a number, black is 0."""
    try:
        with files.open(path) as file, Image.open(file) as image:
            values = np.asarray(image)  # of a palette, the indices
            lossy = image.format in ("JPEG", "MPO")
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise InputError(f"cannot read the masks in '{path}': {error}") from error
    if lossy:  # numbers do not survive it, black and white do
        return (values.reshape(*values.shape[:2], -1).max(2) > 127).astype(np.int64)
    if values.ndim == 2:
        return values.astype(np.int64)
    colours = values[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return np.searchsorted(np.unique(np.append(colours, 0)), colours)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The smallest boxes around masks (k, H, W) that are not empty, float32 (k, 4)."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def pycocotools_mask() -> Any:
    """pycocotools' functions on masks. Raises `InputError` where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError("masks and COCO's scores need pycocotools: pip install 'fullrank[detection]'") from error
    return mask
