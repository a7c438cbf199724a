"""All views of a batch, made on the device where the images are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.views.colour import UNCHANGED, Jitter, Stored
from fullrank.views.crop import FULL_SCALE, check_depth, draw_boxes, resized_crop
from fullrank.views.filters import GaussianBlur, solarize
from fullrank.views.puzzle import cut, draw_corners
from fullrank.views.rand_augment import Chain, Operations, draw_operations, draw_photometric
from fullrank.views.recipe import Recipe, View
from fullrank.views.subset import change_where

# Values that are worked on together on a CPU: 0.8 MB with as much again for temporaries stay in its cache.
CACHED_VALUES = 200_000


@dataclass(frozen=True)
class Draws:
    """The random choices for everything after the crop; the tensors are on the CPU."""

    flip: list[bool]
    order: Int[Tensor, "n 4"]  # of brightness, contrast, saturation, hue
    factors: Float[Tensor, "n 4"]  # their three factors and shift of hue, or UNCHANGED
    grayscale: Bool[Tensor, " n"]
    blur: list[bool]
    sigma: Float[Tensor, " n"]
    solarize: list[bool]
    operations: Chain  # between blur and solarize; grayscale is the last of them, where there are any
    channel: Float[Tensor, " n"]  # where among the channels the one is that is kept, in [0, 1); -1 for all

    def of(self, part: slice) -> Draws:
        """The choices of some samples."""
        return Draws(*(getattr(self, field.name)[part] for field in fields(self)))


def draw(view: View, n: int) -> Draws:
    """Draw the choices of n samples, each its own, from torch's default generator."""
    strength, unchanged = torch.tensor(view.jitter), torch.tensor(UNCHANGED)
    low = (unchanged - strength).clamp_min(torch.tensor([0.0, 0.0, 0.0, -0.5]))
    factors = low + torch.rand(n, 4) * (unchanged + strength - low)
    drawn = Draws(
        flip=(torch.rand(n) < view.flip).tolist(),
        order=torch.rand(n, 4).argsort(1),
        factors=torch.where(torch.rand(n, 1) < view.jitter_probability, factors, unchanged),
        grayscale=torch.rand(n) < view.grayscale,
        blur=(torch.rand(n) < view.blur).tolist(),
        sigma=torch.empty(n).uniform_(*view.blur_sigma),
        solarize=(torch.rand(n) < view.solarize).tolist(),
        operations=draw_photometric(view.photometric, n) if view.photometric else draw_operations(view.rand_augment, n),
        channel=draw_channel(view.single_channel, n),
    )
    if view.grayscale_first or not (view.photometric or view.rand_augment):
        return drawn
    grey_last = drawn.operations.then("Color", 0.0, drawn.grayscale)
    return replace(drawn, operations=grey_last, grayscale=torch.zeros_like(drawn.grayscale))


def draw_channel(probability: float, n: int) -> Float[Tensor, " n"]:
    """Where the channel is that each of n samples keeps, in [0, 1) of all; -1 for a sample that keeps all of them."""
    if not probability:
        return torch.full((n,), -1.0)
    return torch.rand(n).where(torch.rand(n) < probability, -1.0)


class Changes:
    """One view's draws for a batch, ready to be applied to parts of it."""

    def __init__(self, view: View, draws: Draws, fill: Float[Tensor, " c"], size: int, device: torch.device) -> None:
        self.view, self.draws, self.size, self.device = view, draws, size, device
        first, channels = view.grayscale_first, len(fill)
        self.jitter = Jitter(draws.order, draws.factors, draws.grayscale, channels, device, grayscale_first=first)
        self.blur = GaussianBlur(draws.sigma[draws.blur], view.blur_kernel, size, channels, device)
        self.operations = Operations(draws.operations, fill)

    def flip(self, crops: Shaped[Tensor, "m c s s"], part: slice) -> Float[Tensor, "m c s s"]:
        """Crops of any type, flipped where drawn, as float32."""
        if len(crops) > 1:
            crops = crops.clone()  # to be changed in places
        crops = change_where(crops, part, self.draws.flip, lambda some, _: some.flip(-1))
        return torch.empty(crops.shape, device=self.device).copy_(crops)

    def crop(
        self, images: Shaped[Tensor, "m c h w"], part: slice, boxes: Int[Tensor, "m 4"]
    ) -> Float[Tensor, "m c s s"]:
        """Images of any type cropped to their boxes, resized, flipped where drawn, as float32."""
        flipped = torch.tensor(self.draws.flip[part])
        crops = resized_crop(images.float(), boxes, flipped, self.size, self.view.interpolation)
        return crops.clamp_(0, FULL_SCALE.get(images.dtype, 1))

    def recolour(self, crops: Float[Tensor, "m c s s"], part: slice, scale: float) -> Stored:
        """Jitter, blur, ... crops whose values times `scale` are in [0, 1]; uses them up."""
        start = torch.full((len(crops), 1, 1, 1), scale, device=self.device)
        x, factor, offset = self.jitter(Stored(crops, start, torch.zeros_like(start)), part)
        before = sum(self.draws.blur[: part.start])
        x = change_where(x, part, self.draws.blur, lambda some, _: self.blur(some, slice(before, before + len(some))))
        if not (self.operations.turns or any(self.draws.solarize[part])):
            return Stored(x, factor, offset)
        x = self.operations(x.mul_(factor).add_(offset).clamp_(0, 1), part)
        x = change_where(x, part, self.draws.solarize, lambda some, _: solarize(some, self.view.solarize_threshold))
        return Stored(x, torch.ones_like(factor), torch.zeros_like(offset))

    def drop(self, x: Float[Tensor, "m c s s"], part: slice) -> None:
        """Set the channels that are not kept to 0, the mean of normalised ones, in place."""
        place = self.draws.channel[part]
        if (place >= 0).any():
            channel = torch.arange(x.shape[1])
            dropped = (place >= 0).unsqueeze(1) & (channel != (place * x.shape[1]).long().unsqueeze(1))
            x.masked_fill_(dropped[..., None, None].to(x.device), 0)


class Augment(nn.Module):
    """Random views of a batch, as the recipe says: cropped, flipped, jittered, ..., normalised.

    Args:
        recipe: one entry for each view (`count` entries where a view says so).
        mean: of each channel, for values in [0, 1].
        std: of each channel, for values in [0, 1].

    Everything random comes from torch's default CPU generator: `torch.manual_seed` fixes a batch on any
    device. Each operation equals torchvision's; after a bicubic resize values are clipped to [0, 1], as
    in an 8-bit image.

    Raises:
        InputError: no views, or statistics of different lengths or with a std that is not positive.
    """

    mean: Tensor
    std: Tensor
    # Which part of a larger batch is given, of how many equal ones: processes that share a batch then draw
    # together what one process would draw alone.
    share: tuple[int, int] = (0, 1)

    def __init__(self, recipe: Recipe, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not recipe:
            raise InputError("the view recipe is empty: give at least one view")
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise InputError(f"mean {list(mean)} and std {list(std)}: expected one of each a channel, std > 0")
        self.views = [view for view in recipe for _ in range(view.count)]
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Shaped[Tensor, "n c h w"]) -> list[Float[Tensor, "n ..."]]:
        """All views of the images, float32 of the shapes `View.shape`, normalised.

        Raises:
            InputError: another number of channels than the statistics have, or values that are
                neither uint8 nor uint16 nor floats in [0, 1].
        """
        self._check(images)
        n, _, height, width = images.shape
        part, parts = self._part(n), self.share[1]
        boxes = [draw_boxes(view, n * parts, height, width)[part] for view in self.views]
        return [self._make(images, view, box) for view, box in zip(self.views, boxes, strict=True)]

    @torch.no_grad()
    def finish(self, crops: list[Shaped[Tensor, "n c _ _"]]) -> list[Float[Tensor, "n ..."]]:
        """The views of crops that were made elsewhere (`RandomCrops`), one batch for each view.

        Raises:
            InputError: as `forward`, or not one batch a view.
        """
        if len(crops) != len(self.views):
            raise InputError(f"{len(crops)} batches of crops for {len(self.views)} views: give one for each")
        for batch in crops:
            self._check(batch)
        return [self._make(batch, view, None) for batch, view in zip(crops, self.views, strict=True)]

    def _part(self, n: int) -> slice:
        return slice(self.share[0] * n, (self.share[0] + 1) * n)

    def _make(
        self, images: Shaped[Tensor, "n c h w"], view: View, boxes: Int[Tensor, "n 4"] | None
    ) -> Float[Tensor, "n ..."]:
        """One view of each image, cropped to its box, or whole where it has been cropped already."""
        if view.grid == 1:
            return self._picture(images, view, boxes)
        n = len(images)
        corners = draw_corners(view, n * self.share[1])[self._part(n)]
        if not view.apart:
            return cut(self._picture(images, view, boxes), corners, view.piece)
        crops = images if boxes is None else _crop(images, view, boxes)
        pieces = cut(crops, corners, view.piece)
        return self._picture(pieces.flatten(0, 1), view, None).unflatten(0, (n, -1))

    def _picture(
        self, images: Shaped[Tensor, "n c h w"], view: View, boxes: Int[Tensor, "n 4"] | None
    ) -> Float[Tensor, "n c s s"]:
        """The same before it is cut."""
        n, c, *sides = images.shape
        size = view.size if boxes is not None else sides[0]
        mean, std = self.mean, self.std
        changes = Changes(view, draw(view, n * self.share[1]).of(self._part(n)), mean.flatten(), size, images.device)
        output = _uninitialised((n, c, size, size), images.device)
        with torch.autocast(images.device.type, enabled=False):
            for part in _parts(images, max(size, *sides)):
                if boxes is None:
                    crops = changes.flip(images[part], part)
                else:
                    crops = changes.crop(images[part], part, boxes[part])
                x, scale, offset = changes.recolour(crops, part, 1 / FULL_SCALE.get(images.dtype, 1))
                torch.mul(x, scale / std, out=output[part]).add_((offset - mean) / std)
                changes.drop(output[part], part)
        return output

    def _check(self, images: Shaped[Tensor, "n c h w"]) -> None:
        if images.shape[1] != len(self.mean):
            raise InputError(f"images have {images.shape[1]} channels, mean and std {len(self.mean)}: give one each")
        check_depth(images)


def _crop(images: Shaped[Tensor, "n c h w"], view: View, boxes: Int[Tensor, "n 4"]) -> Float[Tensor, "n c s s"]:
    """The images cropped to their boxes and resized, and nothing else, in [0, 1]."""
    n, c, *sides = images.shape
    crops = _uninitialised((n, c, view.size, view.size), images.device)
    scale, upright = FULL_SCALE.get(images.dtype, 1), torch.zeros(n, dtype=torch.bool)
    with torch.autocast(images.device.type, enabled=False):
        for part in _parts(images, max(view.size, *sides)):
            some = resized_crop(images[part].float(), boxes[part], upright[part], view.size, view.interpolation)
            torch.div(some, scale, out=crops[part]).clamp_(0, 1)
    return crops


def _parts(images: Shaped[Tensor, "n c h w"], side: int) -> Iterator[slice]:
    """Parts of the batch that fit a CPU's cache; elsewhere the whole batch, for few and large kernels."""
    n, c = images.shape[:2]
    step = max(1, CACHED_VALUES // (c * side * side)) if images.device.type == "cpu" else max(1, n)
    for start in range(0, n, step):
        yield slice(start, start + step)


def _uninitialised(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uninitialised float32 memory. On a CPU NumPy's: it asks for huge pages, torch does not."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)
