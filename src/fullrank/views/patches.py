"""The views of methods that see one image in overlapping patches: CPC v2's and OBoW's."""

from __future__ import annotations

import dataclasses

from fullrank.views.recipe import Recipe, View


def cpcv2_views(size: int = 260) -> Recipe:
    """CPC v2's view: a grid of 36 patches of 80 px, 36 px apart, of a 260 px crop.

    The crop is 260 of 300 px a side. Each patch draws its own flip, colours and two of RandAugment's operations, which
    stand for the authors' pairs of AutoAugment's; a quarter is gray, and half keep one colour channel, where how often
    the authors drop the others is not public. Their elastic deformations are left out.
    """
    area, patch = (260 / 300) ** 2, round(size * 80 / 260)
    grid = View(size, (area, area), (1.0, 1.0), grid=6, piece=patch, shuffle=False)
    return (dataclasses.replace(grid, grayscale=0.25, single_channel=0.5, rand_augment=2),)


def obow_views(size: int = 224) -> Recipe:
    """OBoW's views (valeoai/obow, datasets.py): the teacher's whole image, two crops, five of nine pieces of a crop.

    At 224 px: crops of 160 px, and overlapping pieces of 96 px, shifted by up to 24 px, of a 256 px crop, whose colours
    are drawn before it is cut. The code's teacher sees the central 224 px of an image whose short side is 256 px; here
    it sees the central square.
    """
    large, middle, piece, shift = (round(size * side / 224) for side in (256, 160, 96, 24))
    whole = View(size, (1.0, 1.0), (1.0, 1.0), "bilinear", jitter_probability=0.0, grayscale=0.0)
    crop = View(middle, (0.08, 0.6), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5, count=2)
    cut = {"grid": 3, "piece": piece, "shift": shift, "pieces": 5, "apart": False}
    puzzle = dataclasses.replace(crop, size=large, scale=(0.6, 1.0), blur=0.0, count=1, **cut)  # type: ignore[arg-type]
    return (whole, crop, puzzle)
