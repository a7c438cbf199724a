"""A branch: backbone and projector, the two halves of every joint-embedding network."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fullrank.networks.projector import each_view


class UnitRows(nn.Module):
    """Rows scaled to length 1, their values without signs where `absolute` says so."""

    def __init__(self, absolute: bool = False) -> None:
        super().__init__()
        self.absolute = absolute

    def forward(self, rows: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """The rows over their norms, which are taken to be at least 1e-12."""
        unit = nn.functional.normalize(rows, dim=-1)
        return unit.abs() if self.absolute else unit


class FirstEntries(nn.Module):
    """The first entries of each row."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, rows: Float[Tensor, "n y"]) -> Float[Tensor, "n z"]:
        """As many as there are to be."""
        return rows[:, : self.count]


def normalisation(kind: str, width: int) -> nn.Module:
    """std: each dimension centred and scaled to std 1 over the batch; l2: each row to length 1; none: as it is."""
    return {"std": nn.BatchNorm1d(width, affine=False), "l2": UnitRows(), "none": nn.Identity()}[kind]


class Branch(nn.Module):
    """Images (or anything that the backbone takes) -> representation Y -> embedding Z (projector output)."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor | list[Tensor]) -> Any:
        """Representation (n, y) and embedding (n, z) of a batch; of a list of views, a list of each.

        Every view has batch norm statistics of its own, and changes the running ones in its turn.
        """
        if isinstance(images, Tensor):
            representation = self.backbone(images)
            return representation, self.projector(representation)
        representations = each_view(self.backbone, images)
        return representations, each_view(self.projector, representations)

    def embed(self, images: Tensor) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n z"]]:
        """The same, not compiled: batches of any size come here, and few of each."""
        return self.forward(images)
