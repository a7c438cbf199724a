"""The image and its puzzle through one backbone: PIRL and InfoMin."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.networks.branch import Branch


class Puzzle(nn.Module):
    """A branch for images, and one embedding for all pieces of a puzzle, which go through the branch's backbone.

    Each piece has an embedding, and those of an image, side by side in the order given, go through a linear layer.

    Args:
        branch: backbone and projector of the images.
        piece_projector: features of a piece -> `width` numbers.
        width: of an embedding.
        pieces: of a puzzle.
    """

    def __init__(self, branch: Branch, piece_projector: nn.Module, width: int, pieces: int) -> None:
        super().__init__()
        self.branch = branch
        self.piece_projector = piece_projector
        self.join = nn.Linear(pieces * width, width)
        self.pieces = pieces

    @property
    def backbone(self) -> nn.Module:
        """The network that is kept after training."""
        return self.branch.backbone

    def embed(self, images: Tensor) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n z"]]:
        """Representation and embedding of whole images."""
        return self.branch.embed(images)

    def forward(
        self, images: Float[Tensor, "n ..."], pieces: Float[Tensor, "n k ..."]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Representations and embeddings of the images and of the puzzles, whose representation is their pieces' mean.

        The pieces of all puzzles are one batch. They go first, so that running statistics lean to the images.

        Raises:
            InputError: puzzles of another number of pieces, or views that are no puzzles.
        """
        if pieces.ndim != images.ndim + 1 or pieces.shape[1] != self.pieces:
            raise InputError(
                f"the second view has shape {tuple(pieces.shape)}, expected puzzles of {self.pieces} pieces: give it "
                "grid and piece in the view recipe, and the method as many pieces"
            )
        features = self.backbone(pieces.flatten(0, 1))
        puzzle = self.join(self.piece_projector(features).view(len(pieces), -1))
        representation, embedding = self.branch(images)
        return [representation, features.view(*pieces.shape[:2], -1).mean(1)], [embedding, puzzle]
