"""Prototypes: vectors that every embedding is compared with, as clusters or as the classes of a made-up task."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank.networks.memory import unit
from fullrank.schedules import Progress


class Prototypes(nn.Linear):
    """K vectors; the scores of an embedding are its products with them, in the precision of the weights."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(width, count, bias=False)

    def forward(self, embeddings: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape k"]:
        """Scores, whatever autocast asks for: they are divided by small temperatures."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return super().forward(embeddings.to(self.weight.dtype))

    @torch.no_grad()
    def normalise(self) -> None:
        """Bring every prototype to length 1."""
        self.weight.copy_(unit(self.weight))


class ScaledPrototypes(nn.Module):
    """K vectors as directions and lengths (weight normalisation): W = g v / |v|, row by row.

    The lengths start at 1 and may be kept there. Names and start are those of DINO's last layer.
    """

    def __init__(self, width: int, count: int, *, fixed_length: bool = True) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=not fixed_length)
        self.weight_v = nn.Parameter(nn.Linear(width, count, bias=False).weight.detach())

    def forward(self, embeddings: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape k"]:
        """Scores, in the precision of the weights as those of `Prototypes`."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = self.weight_g * unit(self.weight_v)
            return nn.functional.linear(embeddings.to(weight.dtype), weight)


def freeze_early(module: nn.Module, epochs: float, progress: Progress) -> None:
    """Drop the gradients of a module in the first epochs: no step, no momentum, no decay."""
    if progress.step < epochs * progress.steps_per_epoch:
        for parameter in module.parameters():
            parameter.grad = None
