"""TIFF pictures that Pillow would spoil: over 8 bits, many channels, stacks of frames."""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np
from tifffile import EXTRASAMPLE, PHOTOMETRIC, TiffFile, TiffPage, TiffPageSeries, transpose_axes

PICTURE_AXES = "YXSC"  # height, width, samples (RGB) and channels; every other axis counts frames


def count_tiff_frames(file: BinaryIO) -> int:
    """How many pictures a TIFF holds: the product of its axes that are no height, width or channel."""
    with TiffFile(file) as tiff:
        return _frames(tiff.series[0])


def read_tiff_frame(file: BinaryIO, frame: int, max_pixels: int) -> np.ndarray | None:
    """Frame `frame` of a TIFF as (H, W, C), or None for one that Pillow reads well.

    Axes are taken from the metadata (ImageJ, OME, planar configuration): S and C are channels; T, Z and
    unnamed axes count frames.  Raises `ValueError` for a compression that needs another package.
    """
    with TiffFile(file) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        if _has_colour_model(page):
            return None
        if math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis in "YX") > max_pixels:
            raise ValueError(f"its header declares more than {max_pixels:,} pixels in a frame")
        try:
            picture = _frame(tiff, series, frame)
        except ValueError as error:
            if "imagecodecs" in str(error) and _pillow_keeps_all(page, series):
                return None
            raise
    return _colours(picture, page)


def _frames(series: TiffPageSeries) -> int:
    return math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in PICTURE_AXES)


def _has_colour_model(page: TiffPage) -> bool:
    """Palettes, CMYK and the like, and fewer than 8 bits: not the numbers of the picture yet."""
    plain = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
    return page.bitspersample <= 8 and (page.photometric not in plain or page.bitspersample < 8)


def _pillow_keeps_all(page: TiffPage, series: TiffPageSeries) -> bool:
    """Whether Pillow, which knows more compressions, gives every bit and channel of a frame."""
    colour = page.photometric == PHOTOMETRIC.RGB and page.bitspersample == 8
    return (page.samplesperpixel == 1 or colour) and len(series.pages) == _frames(series)


def _frame(tiff: TiffFile, series: TiffPageSeries, frame: int) -> np.ndarray:
    stacked = [i for i, axis in enumerate(series.axes) if axis not in PICTURE_AXES]
    frames = _frames(series)
    if stacked == list(range(len(stacked))) and len(series.pages) % frames == 0:
        pages = len(series.pages) // frames  # the pages of one frame lie together: read only those
        array = tiff.asarray(key=range(frame * pages, (frame + 1) * pages), series=0)
    else:
        array = np.moveaxis(series.asarray(), stacked, range(len(stacked)))
        array = array.reshape(frames, *array.shape[len(stacked) :])[frame]
    lengths = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis in PICTURE_AXES}
    picture = transpose_axes(array.reshape(*lengths.values()), "".join(lengths), "YXCS")
    return picture.reshape(*picture.shape[:2], -1)


def _colours(picture: np.ndarray, page: TiffPage) -> np.ndarray:
    """White as the highest value, and no alpha."""
    if page.photometric == PHOTOMETRIC.MINISWHITE and picture.dtype.kind == "u":
        picture = np.iinfo(picture.dtype).max - picture
    alpha = sum(kind in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA) for kind in page.extrasamples)
    return picture[:, :, : picture.shape[-1] - alpha]
