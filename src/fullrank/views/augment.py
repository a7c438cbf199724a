"""All views of a batch, made on the device where the images are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.views import colour
from fullrank.views.colour import change_where
from fullrank.views.crop import FULL_SCALE, check_depth, draw_boxes, resized_crop
from fullrank.views.filters import gaussian_blur, solarize
from fullrank.views.recipe import Recipe, View

# Values that are worked on together on a CPU: 0.8 MB with as much again for temporaries stay in its cache.
CACHED_VALUES = 200_000


@dataclass(frozen=True)
class Draws:
    """The random choices of a batch for everything after the crop, on the CPU."""

    flip: Bool[Tensor, " n"]
    jitter: Bool[Tensor, " n"]
    order: Int[Tensor, "n 4"]  # of brightness, contrast, saturation, hue
    factors: Float[Tensor, "n 4"]  # three factors, and the shift of the hue in turns
    grayscale: Bool[Tensor, " n"]
    blur: Bool[Tensor, " n"]
    sigma: Float[Tensor, " n"]
    solarize: Bool[Tensor, " n"]

    def __getitem__(self, part: slice) -> Draws:
        return Draws(*(getattr(self, field.name)[part] for field in fields(self)))


def draw(view: View, n: int) -> Draws:
    """Draw the choices of n samples, each its own, from torch's default generator."""
    strength = torch.tensor(view.jitter)
    middle = torch.tensor([1.0, 1.0, 1.0, 0.0])
    low = (middle - strength).clamp_min(torch.tensor([0.0, 0.0, 0.0, -0.5]))
    return Draws(
        flip=torch.rand(n) < view.flip,
        jitter=torch.rand(n) < view.jitter_probability,
        order=torch.rand(n, 4).argsort(1),
        factors=low + torch.rand(n, 4) * (middle + strength - low),
        grayscale=torch.rand(n) < view.grayscale,
        blur=torch.rand(n) < view.blur,
        sigma=torch.empty(n).uniform_(*view.blur_sigma),
        solarize=torch.rand(n) < view.solarize,
    )


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
    def forward(self, images: Shaped[Tensor, "n c h w"]) -> list[Float[Tensor, "n c _ _"]]:
        """All views of the images, float32 of (n, c, size, size), normalised.

        Raises:
            InputError: another number of channels than the statistics have, or values that are
                neither uint8 nor uint16 nor floats in [0, 1].
        """
        self._check(images)
        n, _, height, width = images.shape
        boxes = [draw_boxes(view, n, height, width) for view in self.views]
        return [self._make(images, view, box) for view, box in zip(self.views, boxes, strict=True)]

    @torch.no_grad()
    def finish(self, crops: list[Shaped[Tensor, "n c _ _"]]) -> list[Float[Tensor, "n c _ _"]]:
        """The views of crops that were made elsewhere (`RandomCrops`), one batch for each view.

        Raises:
            InputError: as `forward`, or not one batch a view.
        """
        if len(crops) != len(self.views):
            raise InputError(f"{len(crops)} batches of crops for {len(self.views)} views: give one for each")
        for batch in crops:
            self._check(batch)
        return [self._make(batch, view, None) for batch, view in zip(crops, self.views, strict=True)]

    def _make(
        self, images: Shaped[Tensor, "n c h w"], view: View, boxes: Int[Tensor, "n 4"] | None
    ) -> Float[Tensor, "n c s s"]:
        """One view of each image, cropped to its box, or whole where it has been cropped already."""
        n, c, *sides = images.shape
        size = view.size if boxes is not None else sides[0]
        draws = draw(view, n)
        output = torch.empty(n, c, size, size, device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            for part in _parts(images, max(size, *sides)):
                flip = draws.flip[part]
                if boxes is None:
                    source = change_where(images[part].clone(), flip, lambda some: some.flip(-1))
                    crops = _unit_range(source, output[part])
                else:
                    source = _unit_range(images[part], torch.empty(images[part].shape, device=images.device))
                    crops = resized_crop(source, boxes[part], flip, size, view.interpolation).clamp_(0, 1)
                done = self._finish(crops, view, draws[part])
                torch.sub(done, self.mean, out=output[part]).div_(self.std)
        return output

    def _finish(self, images: Float[Tensor, "n c s s"], view: View, draws: Draws) -> Float[Tensor, "n c s s"]:
        """Everything between crop and normalisation; uses `images` up."""
        order, factors, sigma = draws.order[draws.jitter], draws.factors[draws.jitter], draws.sigma[draws.blur]
        images = change_where(images, draws.jitter, lambda some: colour.jitter(some, order, factors))
        if images.shape[1] == 3:
            images = change_where(images, draws.grayscale, colour.grayscale)
        images = change_where(images, draws.blur, lambda some: gaussian_blur(some, sigma, view.blur_kernel))
        return change_where(images, draws.solarize, lambda some: solarize(some, view.solarize_threshold))

    def _check(self, images: Shaped[Tensor, "n c h w"]) -> None:
        if images.shape[1] != len(self.mean):
            raise InputError(f"images have {images.shape[1]} channels, mean and std {len(self.mean)}: give one each")
        check_depth(images)


def _parts(images: Shaped[Tensor, "n c h w"], side: int) -> Iterator[slice]:
    """Parts of the batch that fit a CPU's cache; elsewhere the whole batch, for few and large kernels."""
    n, c = images.shape[:2]
    step = max(1, CACHED_VALUES // (c * side * side)) if images.device.type == "cpu" else max(1, n)
    for start in range(0, n, step):
        yield slice(start, start + step)


def _unit_range(images: Shaped[Tensor, "n c h w"], out: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images as float32 in [0, 1], written to `out`."""
    out.copy_(images)
    return out.mul_(1 / FULL_SCALE[images.dtype]) if images.dtype in FULL_SCALE else out
