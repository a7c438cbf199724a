"""Two encoders of one image: the first sees its lightness, the second its two colours.

Colour spaces with scikit-image's constants, which the authors' codes call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank.networks.backbone import feature_width

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)  # D65, seen by the observer of 1931
RGB_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
RGB_TO_YDBDR = ((0.299, 0.587, 0.114), (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))


def lab(rgb: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """CIE Lab of sRGB in [0, 1]: L in 0 .. 100."""
    light = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = mix(light, RGB_TO_XYZ) / rgb.new_tensor(WHITE).view(3, 1, 1)
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def ycbcr(rgb: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """YCbCr of RGB in [0, 1]: Y in 16 .. 235."""
    return mix(rgb, RGB_TO_YCBCR) + rgb.new_tensor((16, 128, 128)).view(3, 1, 1)


def ydbdr(rgb: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """YDbDr of RGB in [0, 1]: Y in 0 .. 1."""
    return mix(rgb, RGB_TO_YDBDR)


def mix(channels: Float[Tensor, "n 3 h w"], matrix: Sequence[Sequence[float]]) -> Float[Tensor, "n 3 h w"]:
    """Each new channel as a sum of the old ones, in the precision that they have."""
    columns = channels.new_tensor(matrix).view(3, 3, 1, 1).unbind(1)  # no product of matrices: autocast rounds those
    return torch.stack([channels[:, i, None] * column for i, column in enumerate(columns)]).sum(0)


class Space(NamedTuple):
    """A colour space, and centre and half width of the nominal ranges of its channels."""

    convert: Callable[[Tensor], Tensor]
    centre: tuple[float, float, float]
    width: tuple[float, float, float]


SPACES: Mapping[str, Space] = MappingProxyType(
    {
        "lab": Space(lab, (50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
        "ycbcr": Space(ycbcr, (116.151, 121.08, 132.342), (109.5, 111.855, 111.964)),
        "ydbdr": Space(ydbdr, (0.457, -0.082, -0.052), (0.5, 1.331, 1.333)),
    }
)


class SplitColours(nn.Module):
    """Standardised RGB images -> the features of both encoders, side by side.

    Args:
        lightness: encoder of one channel.
        colours: encoder of two.
        space: one of `SPACES`.
        mean: of each channel in [0, 1]: what was subtracted from the images.
        std: of each channel: what they were divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, lightness: nn.Module, colours: nn.Module, space: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.lightness, self.colours = lightness, colours
        self.space = SPACES[space]
        self.widths = [feature_width(lightness), feature_width(colours)]
        self.num_features = sum(self.widths)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def split(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 2 h w"]]:
        """Lightness and colours, most of them in -1 .. 1."""
        converted = self.space.convert((images * self.std + self.mean).clamp(0, 1))
        centre, width = (images.new_tensor(each).view(3, 1, 1) for each in self.space[1:])
        first, second, third = ((converted - centre) / width).unbind(1)
        return first[:, None], torch.stack([second, third], 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n y"]:
        """Features of the lightness, then those of the colours."""
        lightness, colours = self.split(images)
        return torch.cat([self.lightness(lightness), self.colours(colours)], 1)


class SideBySide(nn.Module):
    """Each of several modules on its own part of the columns."""

    def __init__(self, parts: Sequence[nn.Module], widths: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.widths = list(widths)

    def forward(self, rows: Float[Tensor, "n y"]) -> Float[Tensor, "n z"]:
        """The outputs side by side."""
        given = rows.split(self.widths, 1)
        return torch.cat([part(columns) for part, columns in zip(self.parts, given, strict=True)], 1)
