"""Captions of the embedded set: what a picture shows, said in several ways, from the factors that it was drawn from."""

from __future__ import annotations

import numpy as np

from fullrank.data.rendering import FIGURES, RADIUS, TEXTURES, Draws, Scenes

CAPTIONS = 5  # a picture, all of different build
PHRASES = (
    "{count} {size} {hue} {figures}",
    "{hue} {figures} on {ground}",
    "a picture of {size} {figures} in {hue} on {ground}",
    "{count} {figures}, {hue} and {size}, on something {light}",
    "{size} {hue} {figures} on {ground}, {count} in all",
    "{light} {ground} with {count} {hue} {figures}",
    "{ground} behind {count} {size} {figures}",
)
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = ("small", "medium", "large")  # thirds of the range of radii
HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink")  # around the circle, each from its middle
LIGHTS = ("dark", "bright")
PLURALS = {"cross": "crosses"}


def captions(keys: np.ndarray, scenes: Scenes) -> list[list[str]]:
    """`CAPTIONS` sentences for each picture; those of one depend on its key and its scene alone."""
    first = (Draws(keys)(1)[:, 0] * len(PHRASES)).astype(int)
    hue = np.round(scenes.hue * len(HUES)).astype(int) % len(HUES)
    size = (scenes.size - RADIUS[0]) / (RADIUS[1] - RADIUS[0]) * len(SIZES)
    count, bright = scenes.present.sum(1), scenes.lightness[:, 1] > scenes.lightness[:, 0]
    said = []
    for i, start in enumerate(first):
        figure = FIGURES[scenes.shape[i]]
        words = {
            "count": COUNTS[count[i]],
            "size": SIZES[min(int(size[i]), len(SIZES) - 1)],
            "hue": HUES[hue[i]],
            "figures": figure if count[i] == 1 else PLURALS.get(figure, f"{figure}s"),
            "ground": TEXTURES[scenes.texture[i]].replace("plain", "plain ground"),
            "light": LIGHTS[int(bright[i])],
        }
        said.append([PHRASES[(start + k) % len(PHRASES)].format_map(words) for k in range(CAPTIONS)])
    return said
