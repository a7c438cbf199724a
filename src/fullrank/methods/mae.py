"""MAE: l = mean over hidden patches i of |d(f(x_visible))_i - x_i|^2 / p, f sees the visible patches only.

He, Chen, Xie, Li, Dollar, Girshick: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377; the authors' code is facebookresearch/mae.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fullrank import distributed, losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import PixelDecoder, VisibleEncoder, patchify, standardise_patches
from fullrank.networks.masked import draw_weights
from fullrank.networks.vit import take
from fullrank.schedules import Schedule
from fullrank.views import mae_views
from fullrank.views.masks import random_masks


@register("mae")
class MAE(Method):
    """One view; an encoder sees a quarter of its patches, a small decoder draws the others.

    Y is the class token after the final norm, of whole pictures in evaluation and of the visible patches in training;
    there is no projector, so Z is Y.

    Args:
        backbone: a timm vision transformer with a class token; its weights are drawn anew, its positions fixed.
        mask_ratio: share of the patches that is hidden.
        norm_pix: whether patches are compared without their mean and contrast; off by default in the code, on in the
            published runs.
        decoder_width: of the decoder's tokens.
        decoder_depth: number of the decoder's blocks.
        decoder_heads: of its attention.
    """

    network: VisibleEncoder
    family = "masked image modelling"
    paper = "He et al., CVPR 2022, arXiv:2111.06377"
    views = staticmethod(mae_views)
    published = Optimization(
        "adamw",
        learning_rate=1.5e-4,
        weight_decay=0.05,
        batch_size=4096,
        epochs=800,
        schedule=Schedule(warmup_epochs=40, end_factor=0.0),
        options={"betas": (0.9, 0.95)},
    )
    default_backbone = "vit_small_patch16_224"
    no_accumulation = ""
    one_network = "it looks at one view"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        network = VisibleEncoder(backbone, "mae", class_token=True)
        super().__init__(network)
        self.patches = math.prod(network.grid)
        if not 0 < int(self.patches * (1 - mask_ratio)) < self.patches:
            raise InputError(f"mask_ratio {mask_ratio} of {self.patches} patches: some have to stay and some to go")
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        pixels = math.prod(network.patch) * network.channels
        self.decoder = PixelDecoder(
            network, width=decoder_width, depth=decoder_depth, heads=decoder_heads, outputs=pixels
        )
        draw_weights(self, nn.init.xavier_uniform_)
        for token in (network.backbone.cls_token, self.decoder.mask_token):
            nn.init.normal_(token, std=0.02)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> Step:
        """Hide, encode, decode, compare where it was hidden."""
        images = batch.only_view
        noise = distributed.draw_rows(len(images), lambda n: torch.rand(n, self.patches)).to(images.device)
        keep, hidden, places = random_masks(noise, self.mask_ratio)
        tokens = self.network(images, keep)
        targets = take(patchify(images, self.network.patch), hidden)
        targets = standardise_patches(targets) if self.norm_pix else targets
        terms = losses.mae(self.decoder(tokens, places, hidden), targets, torch.ones_like(hidden, dtype=torch.bool))
        representation = self.network.pool(tokens)
        return Step(terms.pop("loss"), terms, [representation], [representation])

    def compilable(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.network, self.decoder]
