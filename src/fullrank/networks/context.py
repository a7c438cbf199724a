"""CPC's masked context network over a grid of patch vectors, and its predictions of the vectors some rows below."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class ContextNetwork(nn.Module):
    """Residual blocks of masked convolutions: the context at row r is made of rows r - blocks to r.

    A block adds 1x1 - ReLU - 1x3 - 2x1 - ReLU - 1x1 to its input, where the 2x1 convolution looks at its own row and at
    the one above it, zeros over the first. The last block is followed by a ReLU.

    Henaff et al., https://arxiv.org/abs/1905.09272, appendix A.2; there is no released code.

    Args:
        width: of the vectors.
        hidden: channels inside a block.
        blocks: how many there are.
    """

    def __init__(self, width: int, hidden: int = 256, blocks: int = 5) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(width, hidden) for _ in range(blocks))

    def forward(self, grid: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The context at every place of the grid."""
        for block in self.blocks:
            grid = grid + block(grid)
        return grid.relu()


def _block(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
        nn.ZeroPad2d((0, 0, 1, 0)),
        nn.Conv2d(hidden, hidden, (2, 1)),
        nn.ReLU(),
        nn.Conv2d(hidden, width, 1),
    )


class RowPredictor(nn.Module):
    """Linear predictions, from the context at each place, of the targets at some numbers of rows below it.

    Args:
        width: of the vectors of the grid.
        target_width: of what is predicted.
        rows: how many rows below; each has a linear map of its own.
        scale: what the predictions are multiplied by.
        hidden: as `ContextNetwork` takes it.
        blocks: as `ContextNetwork` takes it.
    """

    def __init__(
        self, width: int, target_width: int, rows: Sequence[int], *, scale: float, hidden: int = 256, blocks: int = 5
    ) -> None:
        super().__init__()
        self.context = ContextNetwork(width, hidden, blocks)
        self.heads = nn.ModuleList(nn.Linear(width, target_width) for _ in rows)
        self.rows = tuple(rows)
        self.scale = scale

    def forward(self, grid: Float[Tensor, "n h w c"]) -> dict[int, Float[Tensor, "n _ w t"]]:
        """By number of rows k: predictions of the rows k, k + 1, ... of the grid."""
        context = self.context(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return {k: self.scale * head(context[:, :-k]) for k, head in zip(self.rows, self.heads, strict=True)}
