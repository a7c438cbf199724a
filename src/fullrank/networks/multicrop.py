"""Multi-crop: views of several sizes through one backbone and one projector."""

from __future__ import annotations

from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank.networks.vit import Resizing, represent


class MultiCrop(nn.Module):
    """Backbone and projector for views of several sizes: consecutive views of one size go through in one pass.

    The backbone's batch norms see each size apart. In a pass the views of a sample stand together, so that random
    draws for its rows follow the samples, whatever the number of processes.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: the layers behind it.
        joint: whether the projector takes the views of all sizes in one pass, which its batch norms see, or each size
            apart.
        resizing: how a vision transformer's positions are fitted to other sizes than its own.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, *, joint: bool = True, resizing: Resizing = "dino"
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.joint = joint
        self.resizing = resizing

    def forward(
        self, views: list[Tensor], keep: Int[Tensor, " k"] | None = None
    ) -> tuple[Float[Tensor, "v n y"], Float[Tensor, "v n z"]]:
        """Representations and embeddings; of the views of the first size only the patches `keep` are seen."""
        represented: list[Tensor] = []
        for _, same in groupby(views, key=lambda view: view.shape[-1]):
            group = list(same)
            images = torch.stack(group, 1).flatten(0, 1)
            rows = represent(self.backbone, images, keep=None if represented else keep, resizing=self.resizing)
            represented.append(rows.unflatten(0, (-1, len(group))))  # (n, views of this size, y)
        parts = [torch.cat(represented, 1)] if self.joint else represented
        embedded = [self.projector(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for part in parts]
        return torch.cat(parts, 1).transpose(0, 1), torch.cat(embedded, 1).transpose(0, 1)

    def embed(self, images: Tensor) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n z"]]:
        """Representation and embedding of whole images; not compiled: batches of any size come here."""
        representation = self.backbone(images)
        return representation, self.projector(representation)
