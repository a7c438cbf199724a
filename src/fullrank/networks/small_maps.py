"""Maps that are smaller than the stride of a convolution, as small views leave them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def widen_small_maps(network: nn.Module) -> None:
    """Give every strided convolution, on a CPU, maps of as many cells a side as its stride, the new ones zero.

    A centred convolution pads with zeros in any case, so that its output and gradients are what they should be. Without
    it they are not: in bfloat16, oneDNN (torch 2.14) leaves what was in memory, NaN or any number, in the gradient of
    weights that meet padding alone, as all but one do in a map of 1 x 1 cells under a stride of 2.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and _reaches_alike(module):
            module.register_forward_pre_hook(_widen)


def _reaches_alike(convolution: nn.Conv2d) -> bool:
    """Whether the kernel is centred on its cell, with zeros around the map."""
    if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros":
        return False
    sizes = zip(convolution.kernel_size, convolution.padding, convolution.dilation, strict=True)
    return all(dilation * (kernel - 1) == 2 * padding for kernel, padding, dilation in sizes)


def _widen(convolution: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Zeros on the right of the map and below it; nothing for maps that are large enough."""
    maps: Tensor = inputs[0]
    down, across = convolution.stride  # type: ignore[misc]
    below, right = max(0, down - maps.shape[-2]), max(0, across - maps.shape[-1])
    if maps.device.type != "cpu" or not (below or right):
        return None
    return (functional.pad(maps, (0, right, 0, below)), *inputs[1:])
