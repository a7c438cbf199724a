"""NumPy's .npy files: one picture, or a stack of them, read without loading the rest and without pickle."""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type; the file is left at the first number.  Pickles are refused."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never loaded; save plain numbers")
    return shape, column_major, dtype


def count_npy_pictures(file: BinaryIO) -> int:
    """How many pictures a .npy file holds: a 4-D array is a stack, everything else is one picture."""
    shape, *_ = read_npy_header(file)
    return shape[0] if len(shape) == 4 else 1


def read_npy_picture(file: BinaryIO, index: int = 0) -> np.ndarray:
    """Picture `index` of a .npy file with the channels last, (H, W, C)."""
    shape, column_major, dtype = read_npy_header(file)
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"its array has the shape {shape}; a picture has 2 or 3 axes, a stack of them 4")
    if column_major or len(shape) < 4:
        whole = _numbers(file, shape, dtype, "F" if column_major else "C")
        return channels_last(whole[index] if len(shape) == 4 else whole)
    file.seek(index * math.prod(shape[1:]) * dtype.itemsize, 1)
    return channels_last(_numbers(file, shape[1:], dtype, "C"))


def channels_last(picture: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) to (H, W, C); see `channels_come_first`."""
    if picture.ndim == 2:
        return picture[:, :, None]
    return picture.transpose(1, 2, 0) if channels_come_first(picture.shape) else picture


def channels_come_first(shape: tuple[int, ...]) -> bool:
    """Whether a picture of this shape is (C, H, W) rather than (H, W, C).

    A square picture tells by its two equal sides; otherwise the shorter of the outer axes is the channels.
    """
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return middle == last
    return first < last


def _numbers(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, order: str) -> np.ndarray:
    wanted = math.prod(shape) * dtype.itemsize
    # the size is checked before anything is reserved: a header can declare any shape
    start = file.tell()
    available = file.seek(0, 2) - start
    if available < wanted:
        raise ValueError(f"it is truncated: {wanted:,} bytes are declared, {max(available, 0):,} are there")
    file.seek(start)
    return np.frombuffer(file.read(wanted), dtype=dtype).reshape(shape, order=order)  # type: ignore[call-overload]
