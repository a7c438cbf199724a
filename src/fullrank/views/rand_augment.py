"""Operations of RandAugment in batches of float images in [0, 1], each sample with its own and at its own strength.

As in HobbitLong/PyContrast, datasets/RandAugment.py (InfoMin), and in facebookresearch/vissl,
pil_photometric_transforms_lib.py (PIRL), whose operations are Pillow's. Theirs round to bytes after each operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.transforms.v2 import functional

from fullrank.views.colour import LUMA
from fullrank.views.subset import Rows, change_where

HIGHEST_LEVEL = 10
PROBABILITY = 0.5  # of each operation that was drawn
NOTHING = -1


@dataclass(frozen=True)
class Chain:
    """The operations of each sample, one after the other, on the CPU."""

    kind: Int[Tensor, "n turns"]  # a position in `OPERATIONS`, or NOTHING
    argument: Float[Tensor, "n turns"]
    cubic: Bool[Tensor, "n turns"]  # whether moved pixels are read from sixteen neighbours, else from four

    def __getitem__(self, part: slice) -> Chain:
        return Chain(self.kind[part], self.argument[part], self.cubic[part])

    def then(self, name: str, argument: float, chosen: Bool[Tensor, " n"]) -> Chain:
        """The same with one more operation for the chosen samples."""
        kind = torch.full(chosen.shape, OPERATIONS.index(name)).where(chosen, torch.tensor(NOTHING))
        columns = kind, torch.full(chosen.shape, argument), torch.zeros_like(chosen)
        before = self.kind, self.argument, self.cubic
        return Chain(*(torch.cat([one, each[:, None]], 1) for one, each in zip(before, columns, strict=True)))


def _enhance(level: Tensor) -> Tensor:
    return level / HIGHEST_LEVEL * 1.8 + 0.1


def _shear(level: Tensor) -> Tensor:
    return level / HIGHEST_LEVEL * 0.3


def _translate(level: Tensor) -> Tensor:
    return level / HIGHEST_LEVEL * 0.45


# Operation -> its argument at a level in 0 .. 10: degrees, bits to keep, a threshold or an addend in 0 .. 255, a
# factor, a slope, a share of the side. A higher level solarizes less, and keeps more bits.
ARGUMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "AutoContrast": torch.zeros_like,
    "Equalize": torch.zeros_like,
    "Invert": torch.zeros_like,
    "Rotate": lambda level: level / HIGHEST_LEVEL * 30,
    "PosterizeTpu": lambda level: (level / HIGHEST_LEVEL * 4).trunc(),
    "Solarize": lambda level: (level / HIGHEST_LEVEL * 256).trunc(),
    "SolarizeAdd": lambda level: (level / HIGHEST_LEVEL * 110).trunc(),
    "Color": _enhance,
    "Contrast": _enhance,
    "Brightness": _enhance,
    "Sharpness": _enhance,
    "ShearX": _shear,
    "ShearY": _shear,
    "TranslateXRel": _translate,
    "TranslateYRel": _translate,
}
OPERATIONS = tuple(ARGUMENTS)
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")  # in either direction


def draw_operations(turns: int, n: int, magnitude: float = 10.0, spread: float = 0.5) -> Chain:
    """Draw `turns` operations for each of n samples with replacement, at a normally distributed level."""
    kind = torch.randint(len(OPERATIONS), (n, turns))
    level = (magnitude + spread * torch.randn(n, turns, dtype=torch.float64)).clamp_(0, HIGHEST_LEVEL)
    sign = torch.where(torch.rand(n, turns) < 0.5, -1.0, 1.0)
    argument = torch.zeros_like(level)
    for number in kind.unique().tolist():
        name = OPERATIONS[number]
        direction = sign if name in MOVING else 1.0
        argument = torch.where(kind == number, ARGUMENTS[name](level) * direction, argument)
    skipped = torch.rand(n, turns) >= PROBABILITY
    return Chain(kind.masked_fill_(skipped, NOTHING), argument.float(), torch.rand(n, turns) < 0.5)


def draw_photometric(probability: float, n: int) -> Chain:
    """PIRL's bundle: posterize to 4 .. 8 bits, sharpness 0.1 .. 1.9, solarize from 0 .. 256, autocontrast; or none."""
    names = ("PosterizeTpu", "Sharpness", "Solarize", "AutoContrast")
    kind = torch.tensor([OPERATIONS.index(name) for name in names]).repeat(n, 1)
    bits, threshold = torch.randint(4, 9, (n,)), torch.randint(257, (n,))
    argument = torch.stack([bits, torch.empty(n).uniform_(0.1, 1.9), threshold, torch.zeros(n)], 1)
    kind[torch.rand(n) >= probability] = NOTHING
    return Chain(kind, argument, torch.zeros(kind.shape, dtype=torch.bool))


class Operations:
    """The operations that were drawn for a batch, ready to be applied to parts of it.

    Args:
        chain: what was drawn.
        fill: of each channel, in [0, 1], on the device: the colour of what comes in from outside of a picture.
    """

    def __init__(self, chain: Chain, fill: Float[Tensor, " c"]) -> None:
        self.fill = fill
        self.turns = [
            (OPERATIONS[kind], (kinds == kind).tolist(), argument, cubic)
            for kinds, argument, cubic in zip(
                chain.kind.T, chain.argument.to(fill.device).T, chain.cubic.to(fill.device).T, strict=True
            )
            for kind in kinds.unique().tolist()
            if kind != NOTHING
        ]

    def __call__(self, images: Float[Tensor, "m c h w"], part: slice) -> Float[Tensor, "m c h w"]:
        """Apply to each sample of this `part` of the batch its own operations; uses the images up."""
        for name, chosen, argument, cubic in self.turns:

            def change(some: Tensor, rows: Rows, name: str = name, a: Tensor = argument, c: Tensor = cubic) -> Tensor:
                return apply(name, some, a[rows], c[rows], self.fill)

            images = change_where(images, part, chosen, change)
        return images


def apply(
    name: str,
    images: Float[Tensor, "m c h w"],
    argument: Float[Tensor, " m"],
    cubic: Bool[Tensor, " m"],
    fill: Float[Tensor, " c"],
) -> Float[Tensor, "m c h w"]:
    """One of `OPERATIONS` on images in [0, 1], each with its own argument."""
    if name in MOVING:
        return resample(images, affine(name, argument, *images.shape[2:]), cubic, fill)
    a = argument.view(-1, 1, 1, 1)
    match name:
        case "AutoContrast":
            return _by_channel(images, functional.autocontrast)
        case "Equalize":
            return _by_channel(images, functional.equalize)
        case "Invert":
            return 1 - images
        case "PosterizeTpu":
            step = 2 ** (8 - a)
            return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)
        case "Solarize":
            return torch.where(images >= a / 255, 1 - images, images)
        case "SolarizeAdd":
            return torch.where(images < 128 / 255, (images + a / 255).clamp_(max=1), images)
        case "Sharpness":
            target = _by_channel(images, lambda each: functional.adjust_sharpness(each, 0.0))
        case "Brightness":
            target = torch.zeros_like(images)
        case "Contrast":
            target = _grey(images).mean((2, 3), keepdim=True)
        case "Color":
            target = _grey(images) if images.shape[1] == 3 else images
    return torch.lerp(target.expand_as(images), images, a).clamp_(0, 1)


def _by_channel(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(images.flatten(0, 1).unsqueeze(1)).view(images.shape)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def affine(name: str, a: Float[Tensor, " m"], height: int, width: int) -> Float[Tensor, "m 2 3"]:
    """Matrices that give for a place (x, y, 1) of the new image the place of the old one that it shows, in pixels."""
    one, zero = torch.ones_like(a), torch.zeros_like(a)
    if name == "Rotate":
        cos, sin = torch.cos(-a * (math.pi / 180)), torch.sin(-a * (math.pi / 180))
        x, y = width / 2, height / 2
        rows = (cos, sin, x - cos * x - sin * y), (-sin, cos, y + sin * x - cos * y)
    else:
        along = (one, a, zero) if name == "ShearX" else (one, zero, a * width if name == "TranslateXRel" else zero)
        down = (a, one, zero) if name == "ShearY" else (zero, one, a * height if name == "TranslateYRel" else zero)
        rows = along, down
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def resample(
    images: Float[Tensor, "m c h w"],
    matrices: Float[Tensor, "m 2 3"],
    cubic: Bool[Tensor, " m"],
    fill: Float[Tensor, " c"],
) -> Float[Tensor, "m c h w"]:
    """Images seen through `affine` maps as Pillow's `Image.transform` sees them, bilinear or bicubic.

    Neighbours beyond the border are the border's; places beyond it have the colour `fill`.
    """
    (m, c, h, w), device = images.shape, images.device
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    old = matrices @ torch.stack([x, y, torch.ones_like(x)]).view(3, -1)  # (m, 2, h w)
    size = torch.tensor([[w], [h]], device=device)
    outside = ((old < 0) | (old >= size)).any(1, keepdim=True)
    first = (old - 0.5).floor()
    weights = _tap_weights(old - 0.5 - first, cubic.view(-1, 1, 1))  # four of (m, 2, h w)
    pixels = [(first.long() + tap).clamp_(min=0).minimum(size - 1) for tap in (-1, 0, 1, 2)]
    flat, made = images.flatten(2), torch.zeros(m, c, h * w, device=device)
    for row, by_row in zip(pixels, weights, strict=True):
        for column, by_column in zip(pixels, weights, strict=True):
            place = (row[:, 1] * w + column[:, 0]).unsqueeze(1).expand(m, c, h * w)
            made.addcmul_(flat.gather(2, place), (by_row[:, 1] * by_column[:, 0]).unsqueeze(1))
    return torch.where(outside, fill.view(1, -1, 1), made.clamp_(0, 1)).view(images.shape)


def _tap_weights(d: Tensor, cubic: Tensor) -> list[Tensor]:
    """Of the pixels at -1, 0, 1 and 2 for a place `d` behind 0: a triangle, or Keys' cubic with Pillow's a = -1."""
    keys = (-d * (1 - d) ** 2, 1 - d**2 * (2 - d), d * (1 + d - d**2), -(d**2) * (1 - d))
    lines = (torch.zeros_like(d), 1 - d, d, torch.zeros_like(d))
    return [torch.where(cubic, key, line) for key, line in zip(keys, lines, strict=True)]
