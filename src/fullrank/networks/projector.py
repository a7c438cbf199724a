"""Heads on top of a backbone: the multi-layer perceptrons that published methods call projector or expander."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fullrank.errors import InputError


def mlp(widths: Sequence[int], *, hidden_bias: bool, output_bias: bool) -> nn.Sequential:
    """Linear - BatchNorm - ReLU per hidden layer, then one bare Linear.

    `widths` is (input, hidden, ..., output). Layers stand in the order of the authors' `nn.Sequential`, so
    parameter names ("0.weight", "1.weight", "3.weight", ...) equal those of their checkpoints.
    Source: VICReg (facebookresearch/vicreg, `Projector`: hidden_bias=True, output_bias=False) and Barlow
    Twins (facebookresearch/barlowtwins: both False).
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers += [
            nn.Linear(fan_in, fan_out, bias=hidden_bias),
            nn.BatchNorm1d(fan_out),
            nn.ReLU(inplace=True),
        ]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=output_bias))
    return nn.Sequential(*layers)


def parse_widths(text: str) -> list[int]:
    """Layer widths from "8192-8192-8192". Raises `InputError` for anything but positive whole numbers."""
    parts = str(text).split("-")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"expander '{text}': give layer widths as positive numbers, such as 2048-2048-2048")
    return [int(part) for part in parts]
