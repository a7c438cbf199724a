"""Heads on top of a backbone: the multi-layer perceptrons that papers call projector, expander or predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fullrank.errors import InputError, unknown

# Batch norm after the last layer: none; affine; without scale and offset; with a scale only.
OUTPUT_NORMS = ("none", "affine", "plain", "scale")
# Layers that treat every row by itself.
ROW_BY_ROW = (nn.Linear, nn.ReLU, nn.GELU, nn.Identity)


def mlp(
    widths: Sequence[int],
    *,
    hidden_bias: bool = True,
    output_bias: bool = True,
    norm: bool = True,
    output_norm: str = "none",
    activation: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True),
    init_std: float | None = None,
) -> nn.Sequential:
    """Linear - BatchNorm - activation per hidden layer, then a Linear and, where asked for, one more BatchNorm.

    `widths` is (input, hidden, ..., output). Layers stand in the order of the authors' `nn.Sequential`, so parameter
    names ("0.weight", "1.weight", "3.weight", ...) equal those of their checkpoints. With `norm` false no layer is
    normalised. `init_std` draws the weights from a normal distribution in place of torch's default.

    Where they come from: VICReg (output_bias=False), Barlow Twins (no bias), SimCLR (no bias, output_norm="scale",
    init_std=0.01), SimSiam (hidden_bias=False, output_norm="plain"; its last bias is frozen, since the norm cancels
    it), BYOL (output_bias=False), MoCo v2 (norm=False), NNCLR (output_norm="affine").

    Raises:
        InputError: an output norm of another name.
    """
    if output_norm not in OUTPUT_NORMS:
        raise unknown("output_norm", output_norm, OUTPUT_NORMS)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(fan_in, fan_out, bias=hidden_bias))
        layers += [nn.BatchNorm1d(fan_out)] if norm else []
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=output_bias))
    if norm and output_norm != "none":
        layers.append(_output_norm(widths[-1], output_norm))
        if output_bias and output_norm == "plain":
            layers[-2].bias.requires_grad_(False)  # type: ignore[union-attr]
    for layer in layers:
        if init_std is not None and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=init_std)
    return nn.Sequential(*layers)


def each_view(layers: nn.Module, views: list[Tensor]) -> list[Tensor]:
    """What a network or a stack of layers gives for the samples of each view, (n, ...) each, in one pass.

    Batch norms, and whatever may hold one, see the views apart. The weights of heads outweigh their inputs: reading
    them once for all views, and adding their gradients up inside one product, is what saves time.
    """
    if len(views) > 1 and not _sees_other_samples(layers) and len({view.shape for view in views}) == 1:
        return list(layers(torch.cat(views)).chunk(len(views)))
    if len(views) == 1 or not isinstance(layers, nn.Sequential):
        return [layers(view) for view in views]
    rows = torch.cat(views)
    for layer in layers:
        joint = isinstance(layer, ROW_BY_ROW)
        rows = layer(rows) if joint else torch.cat([layer(part) for part in rows.chunk(len(views))])
    return list(rows.chunk(len(views)))


def _sees_other_samples(network: nn.Module) -> bool:
    """Whether what a network gives for a sample depends on the batch: such layers are batch norms, or keep averages."""
    kept = (name.rpartition(".")[2] for name, _ in network.named_buffers())
    return any(isinstance(layer, _BatchNorm) for layer in network.modules()) or any(
        name.startswith("running_") for name in kept
    )


def _output_norm(width: int, kind: str) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=kind != "plain")
    if kind == "scale":
        norm.register_parameter("bias", None)
    return norm


def parse_widths(text: str) -> list[int]:
    """Layer widths from "8192-8192-8192". Raises `InputError` for anything but positive whole numbers."""
    parts = str(text).split("-")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"layer widths '{text}': give positive numbers, such as 2048-2048-2048")
    return [int(part) for part in parts]
