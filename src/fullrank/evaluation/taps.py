"""Features from any stage of a network: pooled maps, class tokens, mean tokens, the last blocks together."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fullrank.errors import InputError, unknown

Pooling = Literal["auto", "mean", "max", "cls", "cls+mean", "tokens"]
LAST_BLOCKS = re.compile(r"last(\d+)")


class Tap(nn.Module):
    """A backbone that gives the output of one of its parts, pooled to a vector an image.

    Args:
        backbone: images (n, C, H, W) -> (n, width).
        layer: name of a module inside, such as `layer3` or `blocks.8`; `last4` puts the class tokens of the last four
            blocks side by side, normalised as at the end, as DINO's linear probe of small ViTs does; None is the
            network's own output.
        pooling: of a map (n, c, h, w): mean or max over its cells. Of tokens (n, t, c): the class token, the mean of
            the patches, or both side by side. `tokens` pools nothing and lays all side by side. `auto` is the class
            token where there is one, else the mean.

    Raises:
        InputError: the network has no such part, or no class token.
    """

    def __init__(self, backbone: nn.Module, layer: str | None = None, pooling: Pooling = "auto") -> None:
        super().__init__()
        self.backbone, self.layer, self.pooling = backbone, layer, pooling
        self.prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        self._caught: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []
        if layer is None:
            if pooling != "auto":
                raise InputError(
                    f"pooling {pooling} needs --layer: without it the features are the network's own output"
                )
            return
        last = LAST_BLOCKS.fullmatch(layer)
        for name in self._last_blocks(int(last[1])) if last else [layer]:
            self._hooks.append(self._part(name).register_forward_hook(self._catch))
        if pooling in ("cls", "cls+mean") and not self.prefix:
            raise InputError(f"pooling {pooling}: {type(backbone).__name__} has no class token; take mean")

    def _part(self, name: str) -> nn.Module:
        known = dict(self.backbone.named_modules())
        if name not in known or not name:
            raise unknown("layer", name, [each for each in known if each])
        return known[name]

    def _last_blocks(self, count: int) -> list[str]:
        blocks: Any = getattr(self.backbone, "blocks", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or len(blocks) < count:
            raise InputError(f"layer last{count}: {type(self.backbone).__name__} has no {count} transformer blocks")
        return [f"blocks.{number}" for number in range(len(blocks) - count, len(blocks))]

    def _catch(self, _: nn.Module, __: Any, output: Any) -> None:
        self._caught.append(output)

    def close(self) -> None:
        """Leave the backbone as it was."""
        for hook in self._hooks:
            hook.remove()

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, width)."""
        if self.layer is None:
            return self.backbone(images)
        self._caught.clear()
        self.backbone(images)
        caught, self._caught = self._caught, []
        if len(caught) > 1 or LAST_BLOCKS.fullmatch(self.layer):
            norm: Any = getattr(self.backbone, "norm", nn.Identity())
            caught = [norm(each) for each in caught]
        return torch.cat([self._pool(each) for each in caught], dim=1)

    def _pool(self, given: Tensor) -> Tensor:
        if given.ndim == 2 or self.pooling == "tokens":
            return given.flatten(1)
        if given.ndim == 4:
            return given.amax((2, 3)) if self.pooling == "max" else given.mean((2, 3))
        if given.ndim != 3:
            raise InputError(f"layer {self.layer} gives {tuple(given.shape)}: expected a map, tokens or vectors")
        patches = given[:, self.prefix :]
        if self.pooling == "max":
            return patches.amax(1)
        first = given[:, 0]
        if self.pooling == "cls+mean":
            return torch.cat([first, patches.mean(1)], dim=1)
        return first if self.prefix and self.pooling in ("auto", "cls") else patches.mean(1)


class MapTap(Tap):
    """The map (n, c, h, w) itself that a part of a backbone gives.

    Raises:
        InputError: in the first pass, where the part gives no map.
    """

    def _pool(self, given: Tensor) -> Tensor:
        if given.ndim != 4:
            raise InputError(f"layer {self.layer} gives {tuple(given.shape)}: this probe takes a map, as of a ResNet")
        return given
