"""The feature maps inside a backbone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fullrank.errors import InputError


class FeatureMaps(nn.Module):
    """What the last `levels` stages of a convolutional backbone give before they are pooled, the deepest last.

    Raises:
        InputError: a network that gives no maps (timm's do by `forward_intermediates`), or not so many.
    """

    def __init__(self, backbone: nn.Module, levels: int) -> None:
        super().__init__()
        if not hasattr(backbone, "forward_intermediates"):
            raise InputError(f"{type(backbone).__name__} gives no feature maps: take a convolutional network of timm")
        stages = len(getattr(backbone, "feature_info", []))
        if not 1 <= levels <= (stages or levels):
            raise InputError(f"levels is {levels}: give 1 to {stages}, the stages of this network")
        self.backbone = backbone
        self.levels = levels

    def forward(self, images: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """One map a level."""
        return self.backbone.forward_intermediates(images, indices=self.levels, intermediates_only=True)  # type: ignore[operator]
