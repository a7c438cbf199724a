"""The embedded set: figures of one kind scattered over a picture, rendered from known factors; no download.

The label is the kind of figure, which any two crops of a picture share. Where the figures lie, how they are turned,
their colour, which of figure and ground is brighter, the texture of the ground and the light are nuisances that
defeat a comparison of pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from fullrank.data import phrases
from fullrank.data.rendering import FIGURES, TAU, Scenes, render
from fullrank.data.source import Source
from fullrank.errors import InputError, unknown

# What each factor is, (n,), and how it is read: a category, a number, or an angle in radians.
READINGS: dict[str, tuple[str, Callable[[Scenes], np.ndarray]]] = {
    "shape": ("category", lambda scenes: scenes.shape),
    "texture": ("category", lambda scenes: scenes.texture),
    "hue": ("angle", lambda scenes: TAU * scenes.hue),
    "size": ("number", lambda scenes: scenes.size),
    "x": ("number", lambda scenes: scenes.centre[:, 0, 0]),
    "y": ("number", lambda scenes: scenes.centre[:, 0, 1]),
    "rotation": ("angle", lambda scenes: scenes.rotation[:, 0]),
    "light": ("angle", lambda scenes: scenes.light),
    "figure lightness": ("number", lambda scenes: scenes.lightness[:, 0]),
    "ground lightness": ("number", lambda scenes: scenes.lightness[:, 1]),
    "number of figures": ("number", lambda scenes: scenes.present.sum(axis=1).astype(np.float32)),
}
FACTORS = {name: kind for name, (kind, _) in READINGS.items()}
SPLITS = {"train": 8000, "test": 2000}  # usual numbers of pictures
USUAL_SIZE = 32  # pixels a side
CHUNK = 500  # pictures rendered together
HELD = 1 << 30  # bytes: sets up to this size are rendered once and kept


class Shapes(Source):
    """Pictures of scattered figures with label, captions, boxes and masks.

    Args:
        n: pictures; 8000 to train and 2000 to test when left out.
        size: pixels a side.
        split: train or test, which share no picture.
        seed: of the whole set. Picture i of a split is the same for every n.

    Raises `InputError` for an unknown split or numbers that are not positive.
    """

    def __init__(self, n: int | None = None, size: int = USUAL_SIZE, split: str = "train", seed: int = 0) -> None:
        if split not in SPLITS:
            raise unknown("split of shapes", split, SPLITS)
        n = SPLITS[split] if n is None else n
        if n < 1 or size < 8:
            raise InputError(f"shapes with N={n} and size={size}: give at least 1 picture of at least 8 pixels a side")
        keys = np.arange(n, dtype=np.uint64)
        self._keys = keys + (np.uint64(list(SPLITS).index(split)) << np.uint64(40)) + (np.uint64(seed) << np.uint64(44))
        self.size = size
        self._scenes = Scenes(self._keys)
        factors = {name: value(self._scenes) for name, (_, value) in READINGS.items()}
        super().__init__(f"shapes[{split}]", range(n), self._scenes.shape, FIGURES, factors, FACTORS)
        self._all: np.ndarray | None = None

    def read(self, index: int) -> np.ndarray:
        """Picture `index`, (size, size, 3) uint8."""
        return self.images()[index] if self._held() else self._rendered(slice(index, index + 1))[0][0]

    def images(self) -> np.ndarray:
        """All pictures, (n, size, size, 3) uint8; rendered once and kept where they fit."""
        if not self._held():
            return self._render_all()
        if self._all is None:
            self._all = self._render_all()
        return self._all

    def mask(self, index: int) -> np.ndarray:
        """(size, size) uint8: 0 for the ground, a number of its own for every figure."""
        return self._rendered(slice(index, index + 1))[1][0]

    def boxes(self, index: int) -> np.ndarray:
        """The figures' boxes (k, 4) as left, top, right, bottom in pixels; right and bottom are outside."""
        mask = self.mask(index)
        found = [np.nonzero(mask == number) for number in np.unique(mask[mask > 0])]
        edges = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in found]
        return np.array(edges, dtype=np.int64).reshape(-1, 4)

    @cached_property
    def captions(self) -> list[list[str]]:  # type: ignore[override]
        """What each picture shows, in five sentences."""
        return phrases.captions(self._keys, self._scenes)

    def _held(self) -> bool:
        return len(self) * self.size**2 * 3 <= HELD

    def _render_all(self) -> np.ndarray:
        return np.concatenate([self._rendered(slice(i, i + CHUNK))[0] for i in range(0, len(self), CHUNK)])

    def _rendered(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        return render(Scenes(self._keys[part]), self.size)

    def __getstate__(self) -> dict[str, Any]:
        """Without the rendered pictures and the captions: a worker makes its own."""
        kept = {name: value for name, value in self.__dict__.items() if name != "captions"}
        return kept | {"_all": None}


def open_shapes(text: str, split: str | None) -> Shapes:
    """`shapes`, or `shapes:N=5000,size=48,seed=1` with any of the three numbers."""
    options: dict[str, int] = {}
    for part in filter(None, text.partition(":")[2].split(",")):
        name, _, value = part.partition("=")
        if name not in ("N", "size", "seed"):
            raise unknown("option of shapes", name, ("N", "size", "seed"))
        if not value.isdigit():
            raise InputError(f"option '{part}' of shapes: give a whole number, such as {name}=64")
        options[name.lower()] = int(value)
    return Shapes(split=split or "train", **options)
