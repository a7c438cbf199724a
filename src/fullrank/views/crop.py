"""Random crops, resized to a square: drawn as torchvision's RandomResizedCrop, made in batches."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from fullrank.errors import InputError
from fullrank.views.recipe import Recipe, View
from fullrank.views.separable import Separable

TRIES = 10  # as torchvision, before it falls back to the centre
FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}


def check_depth(images: Shaped[Tensor, ...]) -> None:
    """Refuse pixel values that are neither uint8 nor uint16 nor floats in [0, 1].

    Raises:
        InputError: another type, or floats outside [0, 1].
    """
    if images.dtype in FULL_SCALE:
        return
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}: expected uint8, uint16 or floats in [0, 1]; convert them")
    low, high = (bound.item() for bound in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(f"float images span {low:g} .. {high:g}: expected [0, 1]; divide by the full scale")


class RandomCrops:
    """The random crops of one image, one for each view of the recipe: what a data worker does.

    Everything after the crop is left to `Augment.finish`, which takes the crops in batches.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.views = [view for view in recipe for _ in range(view.count)]
        self.draws = [v2.RandomResizedCrop(view.size, view.scale, view.ratio) for view in self.views]

    def __call__(self, image: Shaped[Tensor, "c h w"]) -> list[Shaped[Tensor, "c _ _"]]:
        """Crops of (c, size, size); uint8 stays uint8, uint16 and floats become float32 in [0, 1].

        Raises:
            InputError: pixel values that are neither uint8 nor uint16 nor floats in [0, 1].
        """
        check_depth(image)
        if image.dtype != torch.uint8:
            image = image.float() / FULL_SCALE.get(image.dtype, 1)
        boxes = [self._draw_box(place, image) for place in range(len(self.views))]
        return [_resize(image, view, *box) for view, box in zip(self.views, boxes, strict=True)]

    def _draw_box(self, place: int, image: Shaped[Tensor, "c h w"]) -> list[int]:
        if self.views[place].square:
            return draw_boxes(self.views[place], 1, *image.shape[-2:])[0].tolist()
        drawn = self.draws[place].make_params([image])
        return [drawn[name] for name in ("top", "left", "height", "width")]


def _resize(
    image: Shaped[Tensor, "c h w"], view: View, top: int, left: int, height: int, width: int
) -> Shaped[Tensor, "c s s"]:
    box = image[None, :, top : top + height, left : left + width]
    # The layout of decoded pictures, which torch resizes fastest, and which the crop keeps.
    box = box.contiguous(memory_format=torch.channels_last)
    crop = interpolate(box, (view.size, view.size), mode=view.interpolation, antialias=True)[0]
    # A bicubic resize overshoots; on uint8 torch clips by itself.
    return crop if image.dtype == torch.uint8 else crop.clamp_(0, 1)


def stack_crops(crops: list[Shaped[Tensor, "c s s"]]) -> Shaped[Tensor, "n c s s"]:
    """A batch of crops in the memory layout that they have: several times faster than `torch.stack`."""
    return torch.stack([crop.permute(1, 2, 0) for crop in crops]).permute(0, 3, 1, 2)


def draw_boxes(view: View, n: int, height: int, width: int) -> Int[Tensor, "n 4"]:
    """Boxes (top, left, height, width) of n random crops, distributed as torchvision's."""
    if view.square:
        side = max(1, round(view.square * min(height, width)))
        room = torch.tensor([height - side + 1, width - side + 1])
        return torch.cat([(torch.rand(n, 2, dtype=torch.float64) * room).long(), torch.full((n, 2), side)], 1)
    tries = torch.rand(2, n, TRIES, dtype=torch.float64)
    area = height * width * (view.scale[0] + tries[0] * (view.scale[1] - view.scale[0]))
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    ratio = torch.exp(low + tries[1] * (high - low))
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()  # (2, n, tries)
    limits = torch.tensor([height, width]).view(2, 1, 1)
    fits = ((sides > 0) & (sides <= limits)).all(0)
    first = fits.int().argmax(1)  # the first that fits
    chosen = sides[:, torch.arange(n), first].T  # (n, 2)
    room = limits.view(1, 2) - chosen + 1
    corner = (torch.rand(n, 2, dtype=torch.float64) * room).long()
    boxes = torch.cat([corner, chosen], 1)
    boxes[~fits.any(1)] = torch.tensor(_central_box(view, height, width))
    return boxes


def _central_box(view: View, height: int, width: int) -> tuple[int, int, int, int]:
    """Where no try fits: the largest central box whose ratio is allowed."""
    h, w = height, width
    if width / height < view.ratio[0]:
        h = round(width / view.ratio[0])
    elif width / height > view.ratio[1]:
        w = round(height * view.ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(
    images: Float[Tensor, "n c h w"],
    boxes: Int[Tensor, "n 4"],
    flip: Bool[Tensor, " n"],
    size: int,
    interpolation: str,
) -> Float[Tensor, "n c {size} {size}"]:
    """Crop each sample to its own box, resize it with antialiasing, flip it where asked.

    Equal to torchvision's `resized_crop` followed by `horizontal_flip`. Both are linear in the rows and
    in the columns, so a sample costs two small matrix products. A bicubic resize may overshoot [0, 1].
    """
    top, left, h, w = boxes.unbind(1)
    rows = _resize_matrices(top, h, images.shape[2], size, interpolation, images.device)
    columns = _resize_matrices(left, w, images.shape[3], size, interpolation, images.device, flip)
    crops = images.new_empty(*images.shape[:2], size, size)
    return Separable(rows, columns, images.shape[1])(images, slice(0, len(images)), out=crops)


def _resize_matrices(
    start: Int[Tensor, " n"],
    length: Int[Tensor, " n"],
    source: int,
    size: int,
    interpolation: str,
    device: torch.device,
    flip: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n {size} {source}"]:
    """Weights of `source` input pixels in each of `size` outputs, for a segment of the input a sample."""
    kernel, support = (_cubic, 2) if interpolation == "bicubic" else (_triangle, 1)
    scale = length.double().unsqueeze(1) / size
    stretch = scale.clamp_min(1)  # a wider kernel where the image shrinks: antialiasing
    # float64 here: a place in a large image, and where its kernel begins, need more than 24 bits.
    centre = start.unsqueeze(1) + scale * (torch.arange(size) + 0.5)  # (n, size), in input pixels
    if flip is not None:
        centre = torch.where(flip.unsqueeze(1), centre.flip(1), centre)
    taps = min(source, 2 * math.ceil(support * stretch.max().item()) + 1)
    first = (centre - support * stretch).round().long().clamp_(0, source - taps)
    nearest = ((first + 0.5 - centre) / stretch).float().to(device)
    tap = torch.arange(taps)
    distance = nearest.unsqueeze(2) + (tap / stretch).float().to(device).unsqueeze(1)  # (n, size, taps)
    weights = kernel(distance.abs_())
    pixel = first.to(device).unsqueeze(2) + tap.to(device)
    begin, end = start.to(device).view(-1, 1, 1), (start + length).to(device).view(-1, 1, 1)
    weights *= (pixel >= begin) & (pixel < end)
    weights /= weights.sum(2, keepdim=True)
    return torch.zeros(len(start), size, source, device=device).scatter_(2, pixel, weights)


def _triangle(distance: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    return (1 - distance).clamp_min_(0)


def _cubic(distance: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Keys' cubic with a = -1/2: two clamped polynomials, the first of which lives on [0, 1] only."""
    near, far = distance.clamp(max=1), distance.clamp(max=2)
    return (2 * near - 1) * (near - 1) ** 2 - 0.5 * (far - 1) * (far - 2) ** 2
