"""What the pixels of a data set are, measured on a sample, and how they become numbers from 0 to 1."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.data.source import Source, UnreadableImage
from fullrank.errors import InputError

SAMPLE = 1_000
"""Pictures measured; enough for two digits of mean and std (see docs/data.md)."""
PIXELS_A_PICTURE = 2_048
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LIKE_PHOTOGRAPHS = 0.1
"""ImageNet's statistics are used when every measured mean and std lies within this distance of them."""
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow weighs colours


@dataclass(frozen=True)
class Pixels:
    """The format of a set's pixels: what a run must remember to treat later pictures in the same way.

    Attributes:
        channels: channels a picture has after conversion.
        depth: `uint8`, `uint16` or `float32`.
        low, high: the values of a channel that become 0 and 1; values beyond are clipped.  8-bit pictures
            are always divided by 255.
        mean, std: of each channel after that, for normalisation.
        normalisation: where mean and std come from, in words.
        size: (height, width) when all pictures of the sample have one size.
        sampled: how many pictures were measured.
    """

    channels: int
    depth: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalisation: str
    size: tuple[int, int] | None
    sampled: int

    def to_unit(self, image: np.ndarray) -> np.ndarray:
        """(H, W, any C) at native depth to float32 (H, W, channels) in [0, 1]; NaN becomes 0.

        Raises `InputError` when channels or depth are none of this set's.
        """
        image = self._converted(image)
        if image.dtype == np.uint8:
            return image.astype(np.float32) / np.float32(255)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        scaled = (image.astype(np.float32) - low) / (high - low)
        return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)

    def to_uint8(self, image: np.ndarray) -> np.ndarray:
        """The same as uint8 (H, W, channels), for looking at: deep pictures lose precision."""
        if image.dtype == np.uint8:
            return self._converted(image)
        return (self.to_unit(image) * 255).round().astype(np.uint8)

    def to_tensor(self, image: np.ndarray) -> Tensor:
        """(C, H, W): uint8 for 8-bit sets, float32 in [0, 1] for deeper ones, which would lose in 8 bits."""
        image = self._converted(image) if self.depth == "uint8" else self.to_unit(image)
        return torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements=("C", "W")))  # W: of its own

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and tuples."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Pixels:
        """The inverse of `to_dict`; lists, as JSON and YAML give them, become tuples."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**fields)

    def _converted(self, image: np.ndarray) -> np.ndarray:
        """The picture with this set's channels; its depth is checked."""
        if image.dtype != np.uint8 and image.dtype != self.depth:
            raise InputError(f"a {image.dtype} picture in a set of {self.depth} pictures; store all alike")
        found = image.shape[-1]
        if found == self.channels:
            return image
        if found == 1 and self.channels == 3:
            return np.repeat(image, 3, axis=-1)
        if found == 3 and self.channels == 1:
            grey = image.astype(np.float32) @ GREY
            return (grey if image.dtype == np.float32 else grey.round().astype(image.dtype))[:, :, None]
        raise InputError(f"a picture of {found} channels in a set of {self.channels}; use include to leave it out")


def measure_pixels(source: Source, sample: int = SAMPLE, seed: int = 0) -> Pixels:
    """What the pixels of `source` are, from up to `sample` pictures drawn without repetition.

    Raises:
        InputError: no picture of the sample can be read, or channels or depths differ too much to mix.
    """
    measured = PixelSample()
    for index in sampled_indices(len(source), sample, seed):
        try:
            measured.add(source.names[index], source.read(index))
        except UnreadableImage as error:
            last = error
    if not measured.images:
        raise InputError(f"{source.name}: not one of {min(sample, len(source))} pictures can be read; {last}")
    return measured.pixels()


def sampled_indices(count: int, sample: int, seed: int = 0) -> Iterator[int]:
    """Up to `sample` numbers below `count` in random order, so that the first of them are a sample too."""
    return map(int, np.random.default_rng(seed).permutation(count)[:sample])


class PixelSample:
    """Some pixels of each picture, from which the format of the set is concluded."""

    def __init__(self) -> None:
        self.images = 0
        self._pixels: list[np.ndarray] = []
        self._channels: dict[int, str] = {}
        self._depths: dict[str, str] = {}
        self._sizes: Counter[tuple[int, int]] = Counter()

    def add(self, name: str, image: np.ndarray) -> None:
        """Take note of a picture, (H, W, C)."""
        height, width, channels = image.shape
        self.images += 1
        self._sizes[height, width] += 1
        self._channels.setdefault(channels, name)
        self._depths.setdefault(str(image.dtype), name)
        pixels = image.reshape(-1, channels)
        step = -(-len(pixels) // PIXELS_A_PICTURE)
        self._pixels.append(pixels[:: step + (step > 1 and width % step == 0)].copy())  # not one column only

    def pixels(self) -> Pixels:
        """The format.  Raises `InputError` when the pictures cannot be mixed."""
        channels, depth = self._common_channels(), self._common_depth()
        low, high = self._range(channels, depth)
        plain = Pixels(channels, depth, low, high, (), (), "", None, self.images)
        unit = np.concatenate([plain.to_unit(p[None])[0] for p in self._pixels])
        mean, std, words = _normalisation(unit, depth)
        size = next(iter(self._sizes)) if len(self._sizes) == 1 else None
        return dataclasses.replace(plain, mean=mean, std=std, normalisation=words, size=size)

    def _common_channels(self) -> int:
        if len(self._channels) == 1 or set(self._channels) == {1, 3}:
            return max(self._channels)
        found = [f"{c} ('{self._channels[c]}')" for c in sorted(self._channels)]
        endings = Counter(name.rpartition(".")[2].partition("#")[0] for name in self._channels.values())
        example = next((f"*.{ending}" for ending, n in endings.items() if n == 1), "folder/*")
        raise InputError(
            f"pictures of {', '.join(found[:-1])} and {found[-1]} channels are mixed;"
            f" choose those of one kind with --include, such as --include '{example}'"
        )

    def _common_depth(self) -> str:
        deep = sorted(set(self._depths) - {"uint8"})
        if len(deep) > 1:
            found = " and ".join(f"{kind} ('{self._depths[kind]}')" for kind in deep)
            raise InputError(f"pictures of {found} are mixed; choose one kind with include, or store all alike")
        return deep[0] if deep else "uint8"

    def _range(self, channels: int, depth: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Robust limits of every channel, over the pictures that are not 8-bit."""
        if depth == "uint8":
            return (0.0,) * channels, (255.0,) * channels
        deep = [p.astype(np.float32) for p in self._pixels if p.dtype != np.uint8]
        values = np.concatenate([p if p.shape[1] == channels else np.repeat(p, channels, axis=1) for p in deep])
        values[~np.isfinite(values)] = np.nan
        if np.isnan(values).all(axis=0).any():
            raise InputError("a channel holds no finite number in any picture that was looked at")
        if depth == "float32" and np.nanmin(values) >= 0 and 0.5 < np.nanmax(values) <= 1:
            return (0.0,) * channels, (1.0,) * channels  # made for [0, 1] already
        low, high = np.nanpercentile(values, (0.1, 99.9), axis=0)
        high = np.where(high > low, high, low + 1)
        return tuple(low.tolist()), tuple(high.tolist())


def _normalisation(unit: np.ndarray, depth: str) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean, std and where they come from; `unit` is (pixels, channels) in [0, 1]."""
    mean, std = unit.mean(axis=0, dtype=np.float64), unit.std(axis=0, dtype=np.float64)
    if depth == "uint8" and len(mean) == 3:
        distance = max(np.abs(mean - IMAGENET_MEAN).max(), np.abs(std - IMAGENET_STD).max())
        if distance <= LIKE_PHOTOGRAPHS:
            measured = " ".join(f"{m:.3f}±{s:.3f}" for m, s in zip(mean, std, strict=True))
            words = f"ImageNet's; measured {measured}, near enough"
            return IMAGENET_MEAN, IMAGENET_STD, words
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist()), "measured"
