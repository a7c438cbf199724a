"""A momentum encoder: a copy of a network that follows it slowly and gets no gradient."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Momentum(nn.Module, Generic[M]):
    """A copy whose parameters are an exponential moving average of another module's.

    Buffers are not averaged: batch norm statistics come from the copy's own passes, as in MoCo, BYOL and DINO. The
    copy is in training mode while its owner is.
    """

    copy: M

    def __init__(self, source: M) -> None:
        super().__init__()
        self.copy = copy.deepcopy(source).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *arguments: Any) -> Any:
        """What the copy gives, without gradients."""
        return self.copy(*arguments)

    @torch.no_grad()
    def follow(self, source: nn.Module, momentum: float) -> None:
        """parameter <- momentum * parameter + (1 - momentum) * the source's."""
        own, theirs = ([parameter.detach() for parameter in module.parameters()] for module in (self.copy, source))
        torch._foreach_lerp_(own, theirs, 1 - momentum)
