"""The bytes of one file to one picture, (H, W, C) at the depth that the file has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import torch
import torchvision.io
from PIL import Image, ImageOps

from fullrank.data.npy import count_npy_pictures, read_npy_picture
from fullrank.data.png import is_16_bit_colour, read_png16
from fullrank.data.tiff import count_tiff_frames, read_tiff_frame

# Pillow's own limit: a header that declares more is a decompression bomb or wants to be cut into tiles.
MAX_PIXELS = 89_478_485

# Three times as fast as Pillow on small pictures.  torchvision's own function around this operator warns
# that it will go, in favour of torchcodec; where it is gone, Pillow decodes.
assert torchvision.io
DECODE_JPEG = getattr(torch.ops.image, "decode_jpeg", None)
AS_STORED, TURNED = 0, True  # its arguments: channels as in the file, EXIF rotation applied

STACKS: dict[str, Callable[[BinaryIO], int]] = {
    ".tif": count_tiff_frames,
    ".tiff": count_tiff_frames,
    ".npy": count_npy_pictures,
}
"""Kinds of file that may hold more than one picture, and how to count them from the header."""


def decode(file: BinaryIO, frame: int = 0) -> tuple[np.ndarray, str]:
    """The picture in an open file and its stored mode; `frame` picks one out of a stack.

    Alpha is dropped, palettes and CMYK become RGB, 1-bit becomes 0 and 255, EXIF rotation is applied.
    The array is uint8, uint16 or float32 and native-endian: 16-bit values are kept as they are, other
    integers and floats become float32.  Raises `ValueError` or the decoder's own error, with the reason.
    """
    head = file.read(32)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty (0 bytes)")
    if head.startswith(b"\x93NUMPY"):
        image, mode = read_npy_picture(file, frame), "npy"
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        image, mode = _decode_tiff(file, frame)
    elif head.startswith(b"\xff\xd8"):
        image, mode = _decode_jpeg(file)
    elif is_16_bit_colour(head):
        _check_size(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
        image, mode = read_png16(file.read()), "RGB;16"
    else:
        image, mode = _decode_with_pillow(file)
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"it has the shape {image.shape}; a picture has height, width and channels")
    return native(image), mode


def explain(error: Exception) -> str:
    """Why a decoder gave up, in one line."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "this is not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"its header declares more than {MAX_PIXELS:,} pixels: a decompression bomb, or cut it into tiles"
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"^\w+, \S+\.cpp:\d+, ", "", text)[:200]  # torchvision puts its source file first


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, uint16 or float32."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    raise ValueError(f"it holds {array.dtype} values; numbers are expected")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _decode_jpeg(file: BinaryIO) -> tuple[np.ndarray, str]:
    data = bytearray(file.read())
    height, width, channels = _jpeg_header(data)
    _check_size(width, height)
    if channels not in (1, 3) or DECODE_JPEG is None:  # 4 is CMYK
        file.seek(0)
        return _decode_with_pillow(file)
    image = DECODE_JPEG(torch.frombuffer(data, dtype=torch.uint8), AS_STORED, TURNED)
    return image.permute(1, 2, 0).numpy(), "L" if channels == 1 else "RGB"


def _jpeg_header(data: bytearray) -> tuple[int, int, int]:
    """Height, width and channels from the start-of-frame segment of a JPEG."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = data[place + 5 : place + 9]
            return int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big"), data[place + 9]
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise ValueError("the JPEG is truncated or damaged: it has no frame header")


def _decode_tiff(file: BinaryIO, frame: int) -> tuple[np.ndarray, str]:
    found = read_tiff_frame(file, frame, MAX_PIXELS)
    if found is not None:
        return found, f"uint{8 * found.itemsize}" if found.dtype.kind == "u" else str(found.dtype)
    file.seek(0)
    return _decode_with_pillow(file, frame)


def _decode_with_pillow(file: BinaryIO, frame: int = 0) -> tuple[np.ndarray, str]:
    with Image.open(file) as image:
        image.seek(frame)
        _check_size(*image.size)
        mode = image.mode
        array = array_of(ImageOps.exif_transpose(image))
    return array if array.ndim == 3 else array[:, :, None], mode


def array_of(image: Image.Image) -> np.ndarray:
    """A Pillow image as (H, W) or (H, W, C): no alpha, no palette, no CMYK; 16 bits are kept."""
    if image.mode in ("L", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "I":  # how some 16-bit greys arrive
        array = np.asarray(image)
        return array.astype(np.uint16) if array.min() >= 0 and array.max() <= 65535 else array
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))
