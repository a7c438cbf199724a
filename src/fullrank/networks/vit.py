"""timm's vision transformers in pieces, as masked and multi-crop methods need them: patches, positions, blocks.

Everything works on `timm.models.VisionTransformer`, whose parameters are named as in the authors' codes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from timm.models import VisionTransformer
from timm.models.beit import Beit
from torch import Tensor, nn

from fullrank import distributed
from fullrank.errors import InputError

# How position embeddings are resized: DINO adds 0.1 to the sides and samples with that scale, MSN samples with the root
# of the ratio of patch counts, MAE asks for the exact size.
Resizing = Literal["dino", "msn", "mae"]


def as_transformer(backbone: nn.Module, method: str) -> VisionTransformer:
    """The backbone, known to be a vision transformer. Raises `InputError` for any other network."""
    if not isinstance(backbone, VisionTransformer):
        raise InputError(f"{method} needs a vision transformer: give one, such as --backbone vit_small_patch16_224")
    return backbone


def patch_tokens(vit: VisionTransformer | Beit, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t d"]:
    """Embedded patches in row-major order, without positions; images of any size that the patches divide."""
    return vit.patch_embed.norm(vit.patch_embed.proj(images).flatten(2).transpose(1, 2))


def grid_of(vit: VisionTransformer | Beit, images: Float[Tensor, "n c h w"]) -> tuple[int, int]:
    """Rows and columns of patches in these images."""
    height, width = vit.patch_embed.patch_size
    return images.shape[-2] // height, images.shape[-1] // width


def positions(
    vit: VisionTransformer, grid: tuple[int, int], resizing: Resizing = "dino"
) -> tuple[Float[Tensor, "1 p d"], Float[Tensor, "1 t d"]]:
    """Position embeddings of the class token (p = 0 or 1) and of a grid of patches, resized where the network's own
    grid is another one."""
    table: Tensor = vit.pos_embed  # type: ignore[assignment]
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    first, patches = table[:, :prefix], table[:, prefix:]
    own: tuple[int, int] = vit.patch_embed.grid_size
    return first, patches if grid == own else resize_positions(patches, own, grid, resizing)


def resize_positions(
    patches: Float[Tensor, "1 t d"], own: tuple[int, int], grid: tuple[int, int], resizing: Resizing
) -> Float[Tensor, "1 s d"]:
    """Bicubic resize of the position embeddings of a grid, as the authors of DINO, MSN or MAE do it."""
    square = patches.reshape(1, *own, -1).permute(0, 3, 1, 2)
    how: dict[str, Any] = {"size": grid}
    if resizing == "dino":
        how = {"scale_factor": tuple((to + 0.1) / side for side, to in zip(own, grid, strict=True))}
    elif resizing == "msn":
        how = {"scale_factor": math.sqrt(math.prod(grid) / math.prod(own))}
    resized = nn.functional.interpolate(square, **how, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def embed_patches(
    vit: VisionTransformer,
    images: Float[Tensor, "n c h w"],
    *,
    keep: Int[Tensor, "m k"] | None = None,
    resizing: Resizing = "dino",
) -> Float[Tensor, "m s d"]:
    """What enters the first block: patches with their positions, those that `take` takes only, after the class token
    and the registers if any."""
    first, table = positions(vit, grid_of(vit, images), resizing)
    tokens = patch_tokens(vit, images) + table
    if keep is not None:
        tokens = take(tokens, keep)
    prefix: list[Tensor] = [token for token in (vit.cls_token, vit.reg_token) if token is not None]
    if prefix:
        special = torch.cat(prefix, 1)
        special = special + first if first.shape[1] else special
        tokens = torch.cat([special.expand(len(tokens), -1, -1), tokens], 1)
    return vit.norm_pre(vit.pos_drop(tokens))


def encode(vit: VisionTransformer, tokens: Float[Tensor, "n s d"]) -> Float[Tensor, "n s d"]:
    """All blocks and the final norm."""
    return vit.norm(vit.blocks(tokens))


def represent(
    backbone: nn.Module,
    images: Float[Tensor, "n c h w"],
    *,
    keep: Int[Tensor, " k"] | None = None,
    resizing: Resizing = "dino",
) -> Float[Tensor, "n d"]:
    """The representation of images of any size, which is `backbone(images)` at the network's own.

    Vision transformers resize their positions and may see the patches `keep` only, in that order and the same of each
    image; other networks take the images as they are.
    """
    if not isinstance(backbone, VisionTransformer):
        return backbone(images)
    kept = None if keep is None else keep.expand(len(images), -1)
    return backbone.forward_head(encode(backbone, embed_patches(backbone, images, keep=kept, resizing=resizing)))


class DropPath(nn.Module):
    """Leaves a residual branch out for a share of the rows in training, and scales it for the others.

    The rows of all processes are drawn together, in the order of the samples.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Zeros with probability `rate`, else the tokens over 1 - `rate`."""
        if not self.training or self.rate == 0.0:
            return tokens
        kept = distributed.draw_rows(len(tokens), torch.rand) >= self.rate
        factors = kept.to(tokens.device, tokens.dtype) / (1 - self.rate)
        return tokens * factors.view(-1, *[1] * (tokens.ndim - 1))


def add_drop_path(backbone: nn.Module, rate: float) -> None:
    """Give the blocks of a vision transformer drop path: none in the first, `rate` in the last, a line between them."""
    if isinstance(backbone, VisionTransformer):
        for share, block in zip(torch.linspace(0, rate, len(backbone.blocks)).tolist(), backbone.blocks, strict=True):
            block.drop_path1, block.drop_path2 = DropPath(share), DropPath(share)


def take(tokens: Float[Tensor, "n t d"], index: Int[Tensor, "m k"]) -> Float[Tensor, "m k d"]:
    """The tokens at the given positions of each row; with m = s n, s times of all rows, one set after the other."""
    sets = index.unflatten(0, (-1, len(tokens))).unsqueeze(3)  # (s, n, k, 1)
    every = tokens.expand(len(sets), -1, -1, -1)
    return every.gather(2, sets.expand(-1, -1, -1, tokens.shape[2])).flatten(0, 1)


def sincos_positions(width: int, grid: tuple[int, int]) -> Float[Tensor, "t d"]:
    """Fixed sine-cosine position embeddings in float64, row-major: half for the column, half for the row.

    Each half is [sin(p w) | cos(p w)] with w_i = 10000^(-i / (width / 4)), as in the codes of MAE and I-JEPA.
    Raises `InputError` for a width that four does not divide.
    """
    if width % 4:
        raise InputError(f"sine-cosine positions of width {width}: give a width that 4 divides")
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [axis.flatten().outer(frequencies) for axis in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)


def truncated_normal(head: nn.Sequential) -> nn.Sequential:
    """The head with the weights that transformers start from: standard deviation 0.02, cut off at 2; biases 0."""
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head
