"""View recipes: what is done to one image to make its views, written down as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from fullrank.errors import InputError, unknown


@dataclass(frozen=True)
class View:
    """How one view is made: crop and resize, flip, jitter, grayscale, blur, solarize, in this order; then a cut.

    The defaults are what nearly all joint-embedding methods share; each sample draws its own values.
    Saturation, hue and grayscale change images of three channels only.

    Attributes:
        size: side of the square view, in pixels.
        scale: range of the crop's share of the image's area.
        ratio: range of the crop's width / height, uniform in its logarithm.
        interpolation: kernel of the (antialiased) resize.
        flip: probability of a horizontal flip.
        jitter: strengths of brightness, contrast, saturation (factor 1 - s .. 1 + s) and hue (a shift
            of -s .. s turns, s <= 0.5), applied in random order as torchvision's ColorJitter does.
        jitter_probability: probability of the jitter.
        grayscale: probability of grayscale.
        grayscale_first: whether grayscale comes before the jitter, as in MoCo v1, not after it.
        blur: probability of the Gaussian blur.
        blur_sigma: range of its standard deviation, in pixels of the view.
        blur_kernel: its taps, an odd number. 23 reach 5.5 times the largest default sigma, so nothing of
            the Gaussian is cut off; a view too small for them takes the most that fit its mirrored border.
        solarize: probability of inverting all values from `solarize_threshold` up.
        solarize_threshold: in (0, 1]; the default is 128 of 255.
        single_channel: probability that one channel, drawn at random, is kept and the others are their means.
        count: how many views of this kind (multi-crop: six small ones, say).
        rand_augment: how many operations of RandAugment come between blur and grayscale, each with probability 0.5 and
            at full strength (`rand_augment.draw_operations`).
        photometric: probability of posterize, sharpness, solarize and autocontrast one after the other in their place
            (`rand_augment.draw_photometric`).
        grid: squares a side that the view is cut into: a puzzle of grid * grid pieces. Their places are spread evenly,
            so that squares of more than a cell overlap.
        piece: pixels a side of a piece.
        shift: pixels by which each piece moves at random from its place, at most, down and to the right.
        pieces: how many of them are kept, drawn at random; 0 for all.
        apart: whether flip, colours, blur and all after it are drawn for each piece; else for the whole view before the
            cut.
        shuffle: whether the pieces come in random order; else row by row.
        square: side of a square crop at a random place, as a share of the image's shorter side, where the crop's area
            and shape are not random: torchvision's Resize(256) and RandomCrop(224) are 0.875.

    Raises:
        InputError: a value outside its range.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int = 23
    solarize: float = 0.0
    solarize_threshold: float = 128 / 255
    count: int = 1
    grid: int = 1
    piece: int = 0
    pieces: int = 0
    apart: bool = True
    grayscale_first: bool = False
    shift: int = 0
    rand_augment: int = 0
    photometric: float = 0.0
    single_channel: float = 0.0
    shuffle: bool = True
    square: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter_probability", "grayscale", "blur", "solarize", "photometric", "single_channel"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a probability in 0 .. 1")
        for name in ("scale", "ratio", "blur_sigma"):
            low, high = getattr(self, name)
            self._require(name, 0 < low <= high, "(low, high) with 0 < low <= high")
        self._require("scale", self.scale[1] <= 1, "a share of the area, at most 1")
        self._require("square", 0 <= self.square <= 1, "a share of the shorter side, at most 1")
        self._require("size", self.size >= 1, "at least 1 pixel")
        self._require("count", self.count >= 1, "at least 1")
        self._require("rand_augment", self.rand_augment >= 0, "at least 0 operations")
        self._require("photometric", not (self.rand_augment and self.photometric), "0 beside rand_augment")
        self._require("grid", self.grid >= 1, "at least 1 square a side")
        self._require("shift", self.shift >= 0, "at least 0 pixels")
        fits = self.grid == 1 or 1 <= self.piece <= self.size - self.shift
        self._require("piece", fits, f"1 .. {self.size - self.shift} pixels, what a view of {self.size} has room for")
        self._require("pieces", 0 <= self.pieces <= self.grid**2, "at most the pieces of the grid")
        self._require("interpolation", self.interpolation in ("bicubic", "bilinear"), "bicubic or bilinear")
        strengths = len(self.jitter) == 4 and all(s >= 0 for s in self.jitter) and self.jitter[3] <= 0.5
        self._require("jitter", strengths, "four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5)")
        self._require("blur_kernel", self.blur_kernel % 2 == 1, "an odd number of taps")
        self._require("solarize_threshold", 0 < self.solarize_threshold <= 1, "in (0, 1]")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"view option '{name}' is {getattr(self, name)!r}: expected {expected}")

    def shape(self, channels: int) -> tuple[int, ...]:
        """The shape of one such view of one sample: (C, size, size), or (pieces, C, piece, piece) of a puzzle."""
        if self.grid == 1:
            return (channels, self.size, self.size)
        return (self.pieces or self.grid**2, channels, self.piece, self.piece)

    def to_dict(self) -> dict[str, Any]:
        """All options as numbers, strings and lists, ready for YAML or JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> View:
        """The view that `to_dict` wrote; missing options take their defaults.

        Raises:
            InputError: an option that does not exist (the nearest is named) or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown("view option", name, known)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
        return cls(**values)


Recipe: TypeAlias = tuple[View, ...]


def vicreg_views(size: int = 224) -> Recipe:
    """The two views of VICReg's code (facebookresearch/vicreg, augmentations.py), also Barlow Twins'.

    They differ: the first is always blurred and never solarized, the second is blurred with probability
    0.1 and solarized with 0.2. The code blurs with PIL, whose filter approximates the Gaussian by boxes;
    here it is the Gaussian itself.
    """
    return (View(size=size, blur=1.0), View(size=size, blur=0.1, solarize=0.2))


def vicreg_paper_views(size: int = 224) -> Recipe:
    """The two equal views of VICReg's paper (appendix C, arXiv:2105.04906): blur 0.5, solarize 0.1.

    The paper prints the crop scale as (0.08, 0.1), a slip for (0.08, 1.0), and names no interpolation:
    bilinear, the default of the library that it uses.
    """
    view = View(size=size, interpolation="bilinear", blur=0.5, solarize=0.1)
    return (view, view)


def byol_views(size: int = 224) -> Recipe:
    """The two views of BYOL's code (deepmind-research, byol/utils/augmentations.py): VICReg's, solarized from 0.5 up.

    The code adds to the brightness and takes each channel's own mean for the contrast; here both are torchvision's.
    """
    return tuple(dataclasses.replace(view, solarize_threshold=0.5) for view in vicreg_views(size))


def simclr_views(size: int = 224) -> Recipe:
    """The two equal views of SimCLR's code (google-research/simclr, data_util.py) at colour strength 1.

    Of the two colour jitters in the code this is the second, which multiplies the brightness. The code takes each
    channel's own mean for the contrast, blurs with a border of zeros, and shows the network values in [0, 1]; here
    contrast and border are torchvision's, and views are normalised as for all methods.
    """
    jitter = (0.8, 0.8, 0.8, 0.2)
    return (View(size, jitter=jitter, blur=0.5, blur_kernel=2 * (size // 20) + 1),) * 2


def moco_v1_views(size: int = 224) -> Recipe:
    """The two equal views of MoCo v1's code (facebookresearch/moco, main_moco.py): grayscale first, jitter always."""
    jitter = (0.4, 0.4, 0.4, 0.4)
    view = View(size, (0.2, 1.0), interpolation="bilinear", jitter=jitter, jitter_probability=1.0, grayscale_first=True)
    return (view, view)


def moco_v2_views(size: int = 224) -> Recipe:
    """The two equal views of MoCo v2's code (facebookresearch/moco, main_moco.py --aug-plus), also SimSiam's."""
    return (View(size, (0.2, 1.0), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5),) * 2


def cmc_views(size: int = 224) -> Recipe:
    """The one view of CMC's code (HobbitLong/CMC, train_CMC.py) for ResNets: crop and flip; AlexNet crops 0.2 .. 1."""
    return supervised_views(size)


def pirl_views(size: int = 224) -> Recipe:
    """The image and the puzzle of PIRL's code (facebookresearch/vissl, pirl_jigsaw_4node_resnet50.yaml).

    Every piece has colours and a flip of its own. In its cell it moves by one pixel less than there is room.
    """
    jitter = (0.4, 0.4, 0.4, 0.2)
    image = View(size, interpolation="bilinear", jitter=jitter, jitter_probability=1.0, photometric=0.66)
    puzzle = puzzle_of(image)
    return (image, dataclasses.replace(puzzle, shift=puzzle.shift - 1))


def infomin_views(size: int = 224) -> Recipe:
    """Two views by InfoMin's policy D and a puzzle of its code (HobbitLong/PyContrast, datasets/util.py).

    The puzzle is flipped as a whole, and keeps its colours.
    """
    crop = View(size, (0.2, 1.0), interpolation="bilinear")
    view = dataclasses.replace(crop, jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, rand_augment=2)
    plain = dataclasses.replace(crop, jitter_probability=0.0, grayscale=0.0, apart=False)
    return (view, view, puzzle_of(plain))


def puzzle_of(view: View) -> View:
    """The same as nine pieces of a larger crop of at least 0.6 of the image, as PIRL and InfoMin cut it.

    For a view of 224 px it has 255, in cells of 85, with pieces of 64 that move by 0 .. 21; otherwise in proportion.
    """
    cell = round(view.size * 85 / 224)
    piece = min(round(cell * 64 / 85), cell - 1)
    return dataclasses.replace(view, size=3 * cell, scale=(0.6, 1.0), grid=3, piece=piece, shift=cell - piece)


def supervised_views(size: int = 224) -> Recipe:
    """The one view of supervised training on ImageNet (pytorch/examples and torchvision): crop and flip."""
    return (View(size, interpolation="bilinear", jitter_probability=0.0, grayscale=0.0),)


def resized_views(size: int = 224) -> Recipe:
    """The one view of training on Places205 in OBoW's code: resize to 256, a random crop of 224, flip."""
    return (View(size, interpolation="bilinear", jitter_probability=0.0, grayscale=0.0, square=224 / 256),)


def swav_views(size: int = 224) -> Recipe:
    """The two large and six small views of SwAV's code (facebookresearch/swav, src/multicropdataset.py)."""
    large = View(size, (0.14, 1.0), interpolation="bilinear", jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, count=2)
    return (large, dataclasses.replace(large, size=local_size(size), scale=(0.05, 0.14), count=6))


def swav_large_views(size: int = 224) -> Recipe:
    """SwAV's two views without multi-crop, as in its script of that name."""
    return (dataclasses.replace(swav_views(size)[0], scale=(0.08, 1.0)),)


def dino_views(size: int = 224) -> Recipe:
    """The two global and eight local views of DINO's code (facebookresearch/dino, main_dino.py)."""
    first, second = (dataclasses.replace(view, scale=(0.4, 1.0)) for view in vicreg_views(size))
    return (first, second, View(local_size(size), (0.05, 0.4), blur=0.5, count=8))


def msn_views(size: int = 224) -> Recipe:
    """The views of MSN's code (facebookresearch/msn, src/data_manager.py): for the target, to be masked, ten focal."""
    large = View(size, (0.3, 1.0), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5, count=2)
    return (large, dataclasses.replace(large, size=local_size(size), scale=(0.05, 0.3), count=10))


def local_size(size: int) -> int:
    """Pixels a side of the small views of multi-crop: 96 of 224, and what patches divide at other sizes.

    Patches of transformers are taken to be 16 px, and an eighth of images below 112 px.
    """
    patch = 16 if size >= 112 else max(2, size // 8)
    return math.ceil(size * 96 / 224 / patch) * patch


def mae_views(size: int = 224) -> Recipe:
    """MAE's one view (facebookresearch/mae, main_pretrain.py): a crop, flipped or not."""
    return (View(size, (0.2, 1.0), jitter_probability=0.0, grayscale=0.0),)


def ijepa_views(size: int = 224) -> Recipe:
    """I-JEPA's one view (facebookresearch/ijepa, configs/in1k_vith14_ep300.yaml): a crop and nothing else."""
    return (View(size, (0.3, 1.0), interpolation="bilinear", flip=0.0, jitter_probability=0.0, grayscale=0.0),)


def beit_views(size: int = 224) -> Recipe:
    """BEiT's one view (microsoft/unilm, beit/datasets.py): a crop, flipped or not, its colours always jittered.

    The code jitters before it crops.
    """
    return (View(size, jitter=(0.4, 0.4, 0.4, 0.0), jitter_probability=1.0, grayscale=0.0),)


def vse_views(size: int = 224) -> Recipe:
    """The one view of VSE++'s code (fartashf/vsepp, data.py): cropped and flipped, its colours as they are."""
    return (View(size=size, interpolation="bilinear", jitter_probability=0.0, grayscale=0.0),)
