"""A linear classifier beside a method: it reads the representation and changes nothing in it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.networks.backbone import feature_width


class OnlineClassifier(nn.Linear):
    """Cross-entropy of a linear classifier on the detached representation, as BYOL's and DirectCLR's codes train along.

    Raises:
        InputError: data without at least two labels.
    """

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        if classes < 2:
            raise InputError(f"online_classifier needs labels, and these data have {classes}: leave it out")
        super().__init__(feature_width(backbone), classes)

    def add_to(
        self, terms: dict[str, Tensor], representation: Float[Tensor, "n y"], labels: Int[Tensor, " n"] | None
    ) -> dict[str, Tensor]:
        """The terms with `classification` among them and in `loss`."""
        assert labels is not None  # their number is not 0
        loss = nn.functional.cross_entropy(self(representation.detach()), labels)
        return {**terms, "loss": terms["loss"] + loss, "classification": loss}
