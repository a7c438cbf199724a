"""A branch: backbone and projector, the two halves of every joint-embedding network."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Branch(nn.Module):
    """Images -> representation Y (backbone output) -> embedding Z (projector output)."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n z"]]:
        """Representation and embedding of a batch. One call a view: batch norm statistics are per view."""
        representation = self.backbone(images)
        return representation, self.projector(representation)

    def each(self, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Representations and embeddings of every view, one pass a view.

        Batch norm statistics are then per view, as in the authors' code of VICReg and Barlow Twins.
        """
        passes = [self(view) for view in views]
        return [y for y, _ in passes], [z for _, z in passes]
