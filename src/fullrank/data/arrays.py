"""Pictures that come as one array: from Python, or in a .npy or .npz file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fullrank.data.decode import native
from fullrank.data.memory import available_memory
from fullrank.data.npy import channels_last
from fullrank.data.source import Source, UnreadableImage
from fullrank.errors import InputError

IMAGE_KEYS = ("images", "x", "arr_0")
LABEL_KEYS = ("labels", "y")
OBJECTS = re.compile("allow_pickle|Python objects")  # how NumPy refuses pickles


class Arrays(Source):
    """An array of pictures, (N, H, W), (N, H, W, C) or (N, C, H, W), which may lie in a mapped file.

    With four axes, the channels are the second or the last, whichever leaves a square or is shorter.

    Args:
        images: the pictures; integers beyond 16 bits and all floats are read as float32.
        labels: integers or names (N,), or None.
        name: what the log calls the set.
    """

    def __init__(
        self,
        images: np.ndarray | torch.Tensor,
        labels: Sequence[object] | np.ndarray | torch.Tensor | None = None,
        name: str = "array",
        classes: Sequence[str] = (),
    ) -> None:
        self._images = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images
        _check_images(name, self._images)
        numbers, named = (None, []) if labels is None else _number(name, np.asarray(labels))
        super().__init__(name, range(len(self._images)), numbers, list(classes) or named)

    def read(self, index: int) -> np.ndarray:
        """(H, W, C), copied."""
        try:
            return native(np.ascontiguousarray(channels_last(self._images[index])))
        except ValueError as error:
            raise UnreadableImage(self.names[index], str(error)) from error


def open_array_file(path: Path) -> Arrays:
    """The pictures of a .npy (mapped, not loaded) or .npz file; pickled objects are refused, never loaded.

    A .npz holds the pictures as `images`, `x` or `arr_0`, and labels, if any, as `labels` or `y`.
    """
    try:
        if path.suffix == ".npy":
            return Arrays(np.load(path, mmap_mode="r", allow_pickle=False), name=path.name)
        return _open_npz(path)
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        reason = "it holds pickled objects" if OBJECTS.search(str(error)) else " ".join(str(error).split())
        raise InputError(f"cannot read {path.name}: {reason}; save one numeric array with numpy.save") from error


def _open_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        images = next((key for key in IMAGE_KEYS if key in arrays), None)
        if images is None:
            raise InputError(f"{path.name} holds {', '.join(arrays)}; one of {', '.join(IMAGE_KEYS)} is needed")
        size = arrays.zip.getinfo(f"{images}.npy").file_size
        if size > available_memory() // 2:
            raise InputError(
                f"'{images}' of {path.name} takes {size >> 20:,} MiB, over half of the free memory;"
                " save it as .npy, which is read in place"
            )
        labels = next((arrays[key] for key in LABEL_KEYS if key in arrays), None)
        return Arrays(arrays[images], labels, path.name)


def _check_images(name: str, images: np.ndarray) -> None:
    if images.dtype.kind not in "buif":
        raise InputError(f"{name} holds {images.dtype} values; pictures are integers or floats")
    if images.ndim == 2:
        raise InputError(f"{name} has the shape {images.shape}: vectors, not pictures; try `fullrank diagnose`")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(f"{name} has the shape {images.shape}; (N, H, W), (N, H, W, C) or (N, C, H, W) is needed")


def _number(name: str, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iubU":
        raise InputError(
            f"{name}: labels have the shape {labels.shape} and type {labels.dtype}; one integer or name each"
        )
    values, numbers = np.unique(labels, return_inverse=True)
    if labels.dtype.kind != "U" and values.min(initial=0) >= 0 and values.max(initial=0) < len(labels):
        return labels.astype(np.int64), [str(i) for i in range(int(values.max(initial=-1)) + 1)]
    return numbers, [str(value) for value in values]
