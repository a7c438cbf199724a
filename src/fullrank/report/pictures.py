"""Pixels as data URIs, so that the page needs no file beside it."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALL = 64  # pixels a side; up to here pictures are kept lossless
LARGEST = 144  # pixels a side; larger ones are scaled down
THUMBNAIL = 32


def data_uri(pixels: np.ndarray, kind: str, **options: int) -> str:
    """(H, W, 3) or (H, W, 4) uint8 -> a data URI of `kind` PNG or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=86, **options)  # `optimize` overruns Pillow's buffer on noise
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown(pixels: np.ndarray) -> str:
    """One picture (H, W, 3) uint8 as a data URI, at most 144 px a side."""
    scaled = shrunk(pixels, LARGEST)
    return data_uri(scaled, "PNG" if max(scaled.shape[:2]) <= SMALL else "JPEG")


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """The same picture with at most `side` pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return np.asarray(image)


@dataclass(frozen=True)
class Sprite:
    """Many thumbnails in one picture, left to right and top to bottom."""

    picture: str
    columns: int
    width: int  # of one thumbnail, pixels
    height: int


def sprite(thumbnails: np.ndarray) -> Sprite:
    """(M, h, w, 3) uint8 -> one JPEG sheet."""
    small = np.stack([shrunk(one, THUMBNAIL) for one in thumbnails])
    count, height, width, _ = small.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:count] = small
    tiled = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    # at full colour resolution: neighbours would bleed into each other
    picture = data_uri(tiled.reshape(rows * height, columns * width, 3), "JPEG", subsampling=0)
    return Sprite(picture, columns, width, height)
