"""Networks of masked image modelling: encoders that see a part of a picture, narrow transformers that fill in the rest.

The encoders are timm's transformers; an encoder's tokens are those after its final norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.layers import LayerNorm
from timm.models import VisionTransformer
from timm.models.beit import Beit
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.networks.vit import (
    as_transformer,
    embed_patches,
    encode,
    grid_of,
    patch_tokens,
    sincos_positions,
    take,
)


class MaskedEncoder(nn.Module):
    """What all of them share: the backbone that is kept, and Y as it pools tokens.

    There is no projector: of whole pictures Z is Y.
    """

    backbone: VisionTransformer | Beit

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.backbone.patch_embed.grid_size

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.backbone.patch_embed.patch_size

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return self.backbone.patch_embed.proj.in_channels

    @property
    def width(self) -> int:
        """Of the tokens."""
        return self.backbone.embed_dim

    @property
    def heads(self) -> int:
        """Of the attention in a block."""
        return self.backbone.blocks[0].attn.num_heads  # type: ignore[union-attr, return-value]

    @property
    def mlp_ratio(self) -> float:
        """Width inside a block's perceptron over the width of the tokens."""
        return self.backbone.blocks[0].mlp.fc1.out_features / self.width  # type: ignore[union-attr, operator, return-value]

    def pool(self, tokens: Float[Tensor, "n s d"]) -> Float[Tensor, "n y"]:
        """The representation that the backbone makes of its tokens."""
        return self.backbone.forward_head(tokens)

    def embed(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n y"]]:
        """Representation of whole pictures, twice."""
        representation = self.backbone(images)
        return representation, representation

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Raises `InputError` for pictures of another size than masks are made for."""
        if grid_of(self.backbone, images) != self.grid:
            height, width = images.shape[-2:]
            raise InputError(
                f"views of {height} x {width} px: masks are made for {self.grid[0]} x {self.grid[1]} patches of "
                f"{self.patch[0]} x {self.patch[1]} px; give views of that size"
            )


class VisibleEncoder(MaskedEncoder):
    """Sees some patches only; positions are fixed sines and cosines, 0 at the class token.

    Raises:
        InputError: no vision transformer, or one with tokens beside the patches and one class token.
    """

    backbone: VisionTransformer

    def __init__(self, backbone: nn.Module, method: str, *, class_token: bool) -> None:
        super().__init__()
        self.backbone = vit = as_transformer(backbone, method)
        if vit.num_prefix_tokens != class_token or vit.pos_embed is None:
            kind = "one class token" if class_token else "no class token"
            raise InputError(f"{method} needs a vision transformer with position embeddings and {kind}: choose another")
        positions = with_zeros(sincos_positions(vit.embed_dim, self.grid), vit.pos_embed.shape[1])
        vit.pos_embed.data.copy_(positions)
        vit.pos_embed.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "n c h w"], keep: Int[Tensor, "m k"] | None = None
    ) -> Float[Tensor, "m s d"]:
        """Tokens of the patches in `keep`, several sets one after the other, or of all; behind the class token."""
        self.check(images)
        return encode(self.backbone, embed_patches(self.backbone, images, keep=keep))


class ReplacingEncoder(MaskedEncoder):
    """BEiT's: sees all places, hidden patches as a mask token; put in before any position.

    Its weights are drawn anew.

    Raises:
        InputError: another network than timm's BEiT.
    """

    backbone: Beit

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        if not isinstance(backbone, Beit):
            raise InputError("beit needs timm's BEiT: give one, such as --backbone beit_base_patch16_224")
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.embed_dim))
        draw_weights(backbone, draw_beit)
        backbone.fix_init_weight()  # deeper blocks add less
        for token in (self.mask_token, backbone.cls_token, backbone.pos_embed):
            if token is not None:
                draw_beit(token)

    def forward(self, images: Float[Tensor, "n c h w"], hidden: Bool[Tensor, "n t"]) -> Float[Tensor, "n s d"]:
        """Tokens of all patches behind the class token, before the norm that stands behind the pooling."""
        self.check(images)
        beit = self.backbone
        tokens = torch.where(hidden.unsqueeze(2), self.mask_token, patch_tokens(beit, images))
        tokens = torch.cat([beit.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        if beit.pos_embed is not None:
            tokens = tokens + beit.pos_embed
        bias = beit.rel_pos_bias() if beit.rel_pos_bias is not None else None
        tokens = beit.pos_drop(tokens)
        for block in beit.blocks:
            tokens = block(tokens, shared_rel_pos_bias=bias)
        return beit.norm(tokens)


class NarrowTransformer(nn.Module):
    """Linear - blocks - norm - Linear on the tokens of an encoder, with fixed positions and a mask token.

    Args:
        encoder: whose tokens come in; blocks have its ratio of widths inside.
        width: of the tokens inside.
        depth: number of blocks.
        heads: of their attention.
        outputs: width of what comes out.

    Raises:
        InputError: a width that the heads, or four, do not divide.
    """

    positions: Tensor

    def __init__(self, encoder: VisibleEncoder, *, width: int, depth: int, heads: int, outputs: int) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"width {width} does not divide by {heads} heads: give a multiple")
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = with_zeros(sincos_positions(width, encoder.grid), encoder.backbone.pos_embed.shape[1])  # type: ignore[union-attr]
        self.register_buffer("positions", positions.float())
        self.blocks = nn.Sequential(
            *(Block(width, heads, encoder.mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))
        )
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def fill(
        self, tokens: Float[Tensor, "n s w"], asked: Callable[[Tensor], Float[Tensor, "n q w"]]
    ) -> Float[Tensor, "n q o"]:
        """What the blocks make of tokens that are complete, of those that `asked` picks."""
        *before, last = self.blocks
        for block in before:
            tokens = block(tokens)
        return self.head(self.norm(last_block(last, tokens, asked)))


def last_block(
    block: Any, tokens: Float[Tensor, "n s w"], asked: Callable[[Tensor], Float[Tensor, "n q w"]]
) -> Float[Tensor, "n q w"]:
    """`asked(block(tokens))`, computed for those tokens alone: the others are only attended to.

    Of timm's `Block` as it stands in `NarrowTransformer`, without drop path, layer scale and norms of queries and keys.
    """
    attention, width = block.attn, tokens.shape[2]
    normed, weight, bias = block.norm1(tokens), attention.qkv.weight, attention.qkv.bias
    queries = nn.functional.linear(asked(normed), weight[:width], bias[:width])
    keys, values = nn.functional.linear(normed, weight[width:], bias[width:]).chunk(2, dim=2)
    heads = (each.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for each in (queries, keys, values))
    seen = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    chosen = asked(tokens) + attention.proj(seen)
    return chosen + block.mlp(block.norm2(chosen))


class PixelDecoder(NarrowTransformer):
    """MAE's decoder: tokens of the visible patches -> pixels of patches."""

    def forward(
        self, tokens: Float[Tensor, "n s d"], places: Int[Tensor, "n t"], asked: Int[Tensor, "n q"] | None = None
    ) -> Float[Tensor, "n q p"]:
        """Class token and visible patches in, the patches `asked` for out, or all.

        `places` says where each patch stands once the hidden ones follow the visible ones.
        """
        tokens = self.embed(tokens)
        hidden = self.mask_token.expand(len(tokens), 1 + places.shape[1] - tokens.shape[1], -1)
        patches = take(torch.cat([tokens[:, 1:], hidden], 1), places)
        tokens = torch.cat([tokens[:, :1], patches], 1) + self.positions
        return self.fill(tokens, lambda given: given[:, 1:] if asked is None else take(given, asked + 1))


class BlockPredictor(NarrowTransformer):
    """I-JEPA's predictor: tokens of contexts -> features of target blocks, every pair of both a sequence of its own."""

    def forward(
        self, tokens: Float[Tensor, "c k d"], seen: Int[Tensor, "c k"], asked: Int[Tensor, "t q"], pictures: int
    ) -> Float[Tensor, "r q o"]:
        """Contexts of all pictures, one set after the other, and the patches asked for; sets of targets come first."""
        context = self.embed(tokens) + take(self.positions.expand(pictures, -1, -1), seen)
        queries = self.mask_token + take(self.positions.expand(pictures, -1, -1), asked)
        contexts, targets = len(seen) // pictures, len(asked) // pictures
        context = context.repeat(targets, 1, 1)
        queries = repeat_sets(queries, pictures, contexts)
        return self.fill(torch.cat([context, queries], 1), lambda given: given[:, seen.shape[1] :])


def block_targets(
    tokens: Float[Tensor, "n t d"], asked: Int[Tensor, "m q"], contexts: int = 1
) -> Float[Tensor, "r q d"]:
    """I-JEPA's targets: tokens normalised without scale and offset, those of each block, once for every context."""
    tokens = nn.functional.layer_norm(tokens, tokens.shape[2:])
    return repeat_sets(take(tokens, asked), len(tokens), contexts)


def repeat_sets(rows: Float[Tensor, "m k d"], pictures: int, times: int) -> Float[Tensor, "r k d"]:
    """Each set of rows (one a picture) `times` times, before the next set."""
    return rows.unflatten(0, (-1, 1, pictures)).expand(-1, times, -1, -1, -1).flatten(0, 2)


def with_zeros(positions: Float[Tensor, "t d"], length: int) -> Float[Tensor, "1 s d"]:
    """The positions of patches behind rows of 0 for tokens in front, `length` rows in all."""
    return nn.functional.pad(positions, (0, 0, length - len(positions), 0)).unsqueeze(0)


def draw_weights(module: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Draw the weights of linear and convolutional layers anew, (out, in) each; biases are 0, norms the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw(layer.weight.data.view(len(layer.weight), -1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()


def draw_beit(tensor: Tensor) -> Tensor:
    """Normal, cut off at one standard deviation, as the authors of BEiT draw weights."""
    return nn.init.trunc_normal_(tensor, std=0.02, a=-0.02, b=0.02)
