"""Small colour pictures rendered from numbers: scenes of scattered figures on a textured, lit background.

Every random number is a hash of (picture, purpose), so a picture never depends on how many others are made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TEXTURES = ("plain", "stripes", "checks", "ripples")
MOST_FIGURES = 9  # in one picture
CANDIDATES = 8  # places tried for a figure; the one with most room is taken
COVERED = 0.5  # share of the picture that figures may cover
RADIUS = (0.13, 0.19)  # of a figure, in picture widths
TEXTURE_CONTRAST = 0.05
TAU = 2 * np.pi

Array = np.ndarray
Outline = Callable[[Array, Array], Array]


def _box(x: Array, y: Array, width: float, height: float) -> Array:
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def _star(x: Array, y: Array) -> Array:
    fifth = TAU / 5
    angle = np.abs((np.arctan2(x, y) + fifth / 2) % fifth - fifth / 2)
    radius = np.hypot(x, y)
    px, py = radius * np.sin(angle), radius * np.cos(angle)
    edge_x, edge_y = 0.45 * np.sin(fifth / 2), 0.45 * np.cos(fifth / 2) - 1.08  # from a tip to a notch
    return (-px * edge_y + (py - 1.08) * edge_x) / np.hypot(edge_x, edge_y)


# Signed distances (about) from the edge of a figure of radius 1, negative inside.
OUTLINES: dict[str, Outline] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.72) - 0.24,
    "square": lambda x, y: _box(x, y, 0.78, 0.78),
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.8660254 + y * 0.5, -y) - 0.55,
    "cross": lambda x, y: np.minimum(_box(x, y, 1, 0.3), _box(x, y, 0.3, 1)),
    "star": _star,
    "bar": lambda x, y: _box(x, y, 1.05, 0.3),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 1, 0.78 - np.hypot(x - 0.55, y)),
}
FIGURES = tuple(OUTLINES)


class Draws:
    """Uniform random numbers that belong to pictures: the same for a picture in whatever company."""

    def __init__(self, keys: Array) -> None:
        self.keys = _scramble(keys * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
        self._purpose = 0

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
        """The next numbers, (pictures, *shape) in [low, high)."""
        self._purpose += 1
        count = int(np.prod(shape, dtype=int))
        numbers = np.arange(count, dtype=np.uint64) + np.uint64(self._purpose << 32)
        bits = _scramble(self.keys[:, None] ^ _scramble(numbers * np.uint64(0x9E3779B97F4A7C15)))
        unit = (bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        return (unit * np.float32(high - low) + np.float32(low)).reshape(len(self.keys), *shape)


def _scramble(bits: Array) -> Array:
    """splitmix64's mixing: every bit of the output depends on every bit of the input."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class Scenes:
    """What the n pictures with these keys, uint64 (n,), show.

    Lengths are in picture widths, angles in radians, hues in turns; all are drawn in this order.
    """

    def __init__(self, keys: Array) -> None:
        draw = Draws(keys)
        first = np.arange(MOST_FIGURES) == 0
        self.hue, size = draw(), draw(low=RADIUS[0], high=RADIUS[1])  # (n,) of the figures
        middle, contrast = draw(low=0.42, high=0.58), draw(low=0.3, high=0.5)
        contrast = np.where(draw() < 0.5, -contrast, contrast)  # figures or background may be the brighter ones
        self.lightness = np.stack([middle + contrast / 2, middle - contrast / 2], axis=1)  # (n, 2) figures, background
        self.radius = size[:, None] * np.where(first, 1.2, draw(MOST_FIGURES, low=0.8, high=1.1))  # (n, figures)
        self.size = self.radius[:, 0]  # (n,) of the first figure, which is the largest
        self.centre, self.present = _scatter(draw, size, self.radius)  # (n, figures, 2) and (n, figures)
        self.shape = _choice(draw(), len(FIGURES))  # (n,) number of a figure: all in a picture are of one kind
        self.texture = _choice(draw(), len(TEXTURES))  # (n,) number of a background texture
        self.background_hue = (self.hue + draw(low=0.2, high=0.8)) % 1  # (n,)
        self.drift = draw(low=-0.15, high=0.15)  # (n,) of the background hue across the picture
        self.saturation = np.stack([draw(low=0.12, high=0.3), draw(low=0.04, high=0.2)], axis=1)  # as lightness
        self.frequency = draw(low=2.5, high=6.0)  # (n,) of the texture
        self.direction = draw(high=TAU)  # (n,) of the texture
        self.phase = draw(2)  # (n, 2) of the texture
        self.light = draw(high=TAU)  # (n,) direction that the light comes from
        self.light_strength = draw(low=0.1, high=0.5)  # (n,)
        self.rotation = draw(MOST_FIGURES, high=TAU)  # (n, figures)
        self.tint = self.hue[:, None] + np.where(first, 0, draw(MOST_FIGURES, low=-0.06, high=0.06))  # (n, figures)


def _choice(uniform: Array, options: int) -> Array:
    return np.minimum((uniform * options).astype(np.int64), options - 1)


def _scatter(draw: Draws, size: Array, radius: Array) -> tuple[Array, Array]:
    """Places of the figures, (n, figures, 2), and which of them found room, (n, figures)."""
    n = len(size)
    places = draw(MOST_FIGURES, CANDIDATES, 2, low=-0.02, high=1.02)
    centre, present = np.zeros((n, MOST_FIGURES, 2), np.float32), np.zeros((n, MOST_FIGURES), bool)
    centre[:, 0], present[:, 0] = draw(2, low=0.15, high=0.85), True
    wanted = np.clip(COVERED / (np.pi * size**2), 3, MOST_FIGURES)
    for k in range(1, MOST_FIGURES):
        away = np.linalg.norm(places[:, k, :, None] - centre[:, None, :k], axis=-1)  # (n, candidates, k)
        room = away - radius[:, None, :k] - radius[:, k, None, None]
        room = np.where(present[:, None, :k], room, np.inf).min(axis=-1)
        best = room.argmax(axis=1)
        centre[:, k] = places[np.arange(n), k, best]
        present[:, k] = (room.max(axis=1) > -0.015) & (k < wanted)
    return centre, present


def render(scenes: Scenes, size: int) -> tuple[Array, Array]:
    """Pictures (n, size, size, 3) uint8 and masks (n, size, size) uint8: 0 background, k + 1 figure k."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = grid[None, None, :], grid[None, :, None]
    images = _background(scenes, x, y)
    masks = np.zeros(images.shape[:3], np.uint8)
    for kind, outline in enumerate(OUTLINES.values()):
        for k in range(MOST_FIGURES):
            which = np.flatnonzero((scenes.shape == kind) & scenes.present[:, k])
            if len(which):
                _paint(images, masks, scenes, which, outline, k)
    towards = _planes(np.cos(scenes.light)) * (x - 0.5) + _planes(np.sin(scenes.light)) * (y - 0.5)
    images *= (1 + _planes(scenes.light_strength) * towards)[..., None]
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8), masks


def _planes(values: Array) -> Array:
    """(n,) as (n, 1, 1)."""
    return np.asarray(values, np.float32)[:, None, None]


def _colour(hue: Array, saturation: Array, lightness: Array) -> Array:
    """RGB (..., 3) of colours on a circle around grey."""
    shift = np.array([0, 1 / 3, 2 / 3], np.float32)
    return lightness[..., None] + saturation[..., None] * np.cos(TAU * (hue[..., None] - shift))


def _background(scenes: Scenes, x: Array, y: Array) -> Array:
    """Textured backgrounds, (n, size, size, 3)."""
    cos, sin = _planes(np.cos(scenes.direction)), _planes(np.sin(scenes.direction))
    along, across = x * cos + y * sin, y * cos - x * sin
    wave, phase = TAU * _planes(scenes.frequency), TAU * scenes.phase
    first, second = _planes(phase[:, 0]), _planes(phase[:, 1])
    distance = np.hypot(x - _planes(scenes.phase[:, 0]), y - _planes(scenes.phase[:, 1]))
    patterns = (
        np.zeros_like(along),
        np.sin(wave * along + first),
        0.8 * np.sign(np.sin(0.7 * wave * along + first) * np.sin(0.7 * wave * across + second)),
        np.sin(wave * distance),
    )
    pattern = np.choose(_planes(scenes.texture).astype(int), patterns)
    hue = _planes(scenes.background_hue) + 2 * _planes(scenes.drift) * (along - 0.5)
    lightness = _planes(scenes.lightness[:, 1]) + TEXTURE_CONTRAST * pattern
    return _colour(hue, _planes(scenes.saturation[:, 1]) + 0 * hue, lightness)


def _paint(images: Array, masks: Array, scenes: Scenes, which: Array, outline: Outline, k: int) -> None:
    """Put figure k of the pictures `which` on them, with soft edges of one pixel."""
    size = images.shape[1]
    centre, radius = scenes.centre[which, k] * size, scenes.radius[which, k] * size
    window = np.arange(int(np.ceil(2.3 * radius.max())) + 2)
    columns = np.floor(centre[:, :1] - len(window) / 2).astype(int) + window
    rows = np.floor(centre[:, 1:] - len(window) / 2).astype(int) + window
    dx = ((columns + 0.5 - centre[:, :1]) / radius[:, None])[:, None, :]
    dy = ((rows + 0.5 - centre[:, 1:]) / radius[:, None])[:, :, None]
    cos, sin = _planes(np.cos(scenes.rotation[which, k])), _planes(np.sin(scenes.rotation[which, k]))
    inside = outline(dx * cos + dy * sin, dy * cos - dx * sin) * _planes(radius)
    cover = np.clip(0.5 - inside, 0, 1)
    cover *= ((columns >= 0) & (columns < size))[:, None, :] & ((rows >= 0) & (rows < size))[:, :, None]
    picture, row, column = np.nonzero(cover > 0)
    amount = cover[picture, row, column].astype(np.float32)
    at = (which[picture], rows[picture, row], columns[picture, column])
    colour = _colour(scenes.tint[which, k], scenes.saturation[which, 0], scenes.lightness[which, 0])[picture]
    images[at] += amount[:, None] * (colour - images[at])
    masks[tuple(index[amount > 0.5] for index in at)] = k + 1
