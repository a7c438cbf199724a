"""A linear classifier on a feature map, as on Places205 and iNaturalist18: pooled, normalised, flattened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Stage(NamedTuple):
    """A stage of a ResNet-50 at 224 px, and the average pooling with which its map is classified."""

    channels: int
    side: int  # cells of the map
    kernel: int
    stride: int
    padding: int

    @property
    def width(self) -> int:
        """Numbers of an image after pooling."""
        return self.channels * ((self.side + 2 * self.padding - self.kernel) // self.stride + 1) ** 2


# facebookresearch/vissl, configs/config/benchmark/linear_image_classification/places205.
RESNET50 = {
    "conv1": Stage(64, 112, 10, 10, 4),
    "res2": Stage(256, 56, 16, 8, 0),
    "res3": Stage(512, 28, 13, 5, 0),
    "res4": Stage(1024, 14, 8, 3, 0),
    "res5": Stage(2048, 7, 6, 1, 0),
}


def published_stage(layer: str) -> Stage:
    """That of a ResNet's layer by timm's name; of other parts, that of the last."""
    return RESNET50[f"res{int(layer[-1]) + 1}" if re.fullmatch("layer[1-4]", layer) else "res5"]


class MapHead(nn.Sequential):
    """Average pooling, batch norm by channels with scale and offset, flatten, linear: VISSL's `eval_mlp`.

    Batch norm is in training mode while the head is trained: features of different methods differ in scale.

    Args:
        channels: of the map.
        width: numbers of an image after pooling.
        classes: number of labels.
        kernel: side of the pooling's window.
        stride: between two windows.
        padding: of the map.
    """

    def __init__(self, channels: int, width: int, classes: int, *, kernel: int, stride: int, padding: int = 0) -> None:
        pool, norm = nn.AvgPool2d(kernel, stride, padding), nn.BatchNorm2d(channels)
        super().__init__(pool, norm, nn.Flatten(), nn.Linear(width, classes))

    @classmethod
    def of(cls, stage: Stage, classes: int) -> MapHead:
        """The head of a stage."""
        return cls(
            stage.channels, stage.width, classes, kernel=stage.kernel, stride=stage.stride, padding=stage.padding
        )

    @classmethod
    def of_map(cls, stage: Stage, shape: Sequence[int], classes: int) -> MapHead:
        """The head of a map (c, h, w) of any size, its pooling in proportion to that of the stage."""
        channels, height, width = shape
        scale = min(height, width) / stage.side
        kernel, stride = (max(1, round(each * scale)) for each in (stage.kernel, stage.stride))
        padding = min(round(stage.padding * scale), kernel // 2)
        cells = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
        return cls(channels, channels * cells[0] * cells[1], classes, kernel=kernel, stride=stride, padding=padding)

    def pooled(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
        """The map after pooling."""
        return self[0](maps)
