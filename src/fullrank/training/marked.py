"""Pictures and what is marked in them, as a detector takes them."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as vision

from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation.splits import Part
from fullrank.training.batches import Draw, mix

TEST_SIDE = 800
LOOKED = 200  # pictures that are looked at for masks, and for sizes a quarter of that
LARGE = 400  # shorter sides (pixels) from which pictures are taken to be of the published kind


class Marked(Dataset):
    """Pictures in [0, 1] (C, H, W) and what is marked in them, as torchvision's detectors take it.

    Args:
        part: pictures with objects.
        pixels: how pictures are scaled.
        masks: whether masks are read.
        flips: whether pictures are mirrored at random, by the number of the draw.
        seed: of the flips.
    """

    def __init__(self, part: Part, pixels: Pixels, *, masks: bool, flips: bool, seed: int = 0) -> None:
        self.source, self.positions, self.pixels = part.source, part.indices, pixels
        self.masks, self.flips, self.seed = masks, flips, seed

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        place, number = draw
        index = int(self.positions[place])
        try:
            image = torch.from_numpy(self.pixels.to_unit(self.source.read(index))).permute(2, 0, 1)
        except InputError:
            if not self.flips or place == 0:
                raise
            return self[place - 1, number]  # of the pictures to learn from, the one before
        assert self.source.objects is not None
        size = image.shape[-2:]
        marked = self.source.objects[index].inside(*size)
        kept = marked.single if self.flips else np.ones(len(marked), bool)  # nothing is learnt from crowds
        target: dict[str, Tensor] = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(marked.boxes[kept]), format="XYXY", canvas_size=size),  # type: ignore[call-overload]
            "labels": torch.from_numpy(marked.labels[kept]) + 1,  # 0 is the background
            "iscrowd": torch.from_numpy(marked.ignored[kept]).long(),
        }
        if self.masks:
            masks = marked.masks()[kept] if marked.masks else np.zeros((int(kept.sum()), *size), bool)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(masks).to(torch.uint8))
        if self.flips and mix(self.seed, number) & 1:
            image, target = (
                vision.horizontal_flip(image),
                {
                    name: vision.horizontal_flip(value) if isinstance(value, tv_tensors.TVTensor) else value
                    for name, value in target.items()
                },
            )
        return image, {name: value.as_subclass(Tensor) for name, value in target.items()}


def collate(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Lists of pictures and targets, which differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def has_masks(part: Part) -> bool:
    """Whether all pictures with objects have masks, of those that are looked at."""
    assert part.source.objects is not None
    step = max(1, len(part.indices) // LOOKED)
    marked = [part.source.objects[int(index)] for index in part.indices[::step]]
    return any(len(each) for each in marked) and all(each.masks is not None for each in marked if len(each))


def sides_for(train: Part, asked: tuple[int, ...], published: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Shorter sides of pictures in training and in testing: as asked for, as published, or small pictures' own."""
    if asked:
        return asked, max(asked)
    looked = [
        train.source.read(int(index)).shape[:2]
        for index in train.indices[:: max(1, len(train.indices) // (LOOKED // 4))]
    ]
    usual = int(statistics.median(min(shape) for shape in looked))
    if usual >= LARGE:
        return published, TEST_SIDE
    return (usual,), usual
