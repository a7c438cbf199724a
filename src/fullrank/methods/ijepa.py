"""I-JEPA: l = mean h(g(f(x_context), places) - sg LN(f_t(x))_target), h smooth L1, f_t a momentum encoder of f.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas: "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", CVPR 2023, https://arxiv.org/abs/2301.08243; the authors' code is
facebookresearch/ijepa.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from fullrank import losses
from fullrank.distributed import own_rows, world_size
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import BlockPredictor, Momentum, VisibleEncoder
from fullrank.networks.masked import block_targets, draw_weights
from fullrank.schedules import Progress, Schedule, linear
from fullrank.views import ijepa_views
from fullrank.views.masks import Draws, block_size, check_blocks, cut_to_shortest, place_blocks, size_draws

MIN_KEEP = 10


@register("ijepa")
class IJEPA(Method):
    """One view; from a context block a predictor tells what a momentum encoder makes of four target blocks.

    Y is the mean of the momentum encoder's patch tokens after the final norm: that encoder is what is kept and, as in
    the paper, evaluated. In training Y is the mean over a context of the trained encoder. There is no projector, so Z
    is Y.

    The size of the blocks follows from the step's number, their places are drawn. All contexts are cut to the shortest
    of the batch, here the batch of all processes; the authors' code cuts each process's own, so a run of theirs sees
    longer contexts than one process with the joint batch. The paper has squared L2 distances.

    Args:
        backbone: a timm vision transformer without class token; its weights are drawn anew, its positions fixed.
        momentum: of the target encoder at the start; it goes to 1 along a line.
        contexts: context blocks of a picture.
        targets: target blocks of a picture.
        context_scale: range of the share of the patches in a context, before targets are taken out of it.
        target_scale: range of the share of the patches in a target.
        target_ratio: range of a target's height / width.
        min_keep: patches that every block has more of; as published 10, on small grids as many as they allow.
        overlap: whether contexts keep the patches of targets.
        predictor_width: of the predictor's tokens; its attention has as many heads as the encoder's.
        predictor_depth: number of the predictor's blocks.
    """

    network: VisibleEncoder
    family = "masked image modelling"
    paper = "Assran et al., CVPR 2023, arXiv:2301.08243"
    views = staticmethod(ijepa_views)
    published = Optimization(
        "adamw",
        learning_rate=1.25e-4,
        weight_decay=0.04,
        batch_size=2048,
        epochs=300,
        schedule=Schedule(warmup_epochs=40, start_factor=0.2, end_factor=0.001, first_step=1),
        weight_decay_end=0.4,
    )
    default_backbone = "vit_small_patch16_224"
    backbone_options = {"class_token": False, "global_pool": "avg", "fc_norm": False}  # noqa: RUF012
    no_accumulation = "its contexts are as long as the shortest of the batch"
    one_network = "the momentum encoder makes the targets: it is the average of one network"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        momentum: float = 0.996,
        contexts: int = 1,
        targets: int = 4,
        context_scale: tuple[float, float] = (0.85, 1.0),
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_ratio: tuple[float, float] = (0.75, 1.5),
        min_keep: int | None = None,
        overlap: bool = False,
        predictor_width: int = 384,
        predictor_depth: int = 12,
    ) -> None:
        super().__init__(VisibleEncoder(backbone, "ijepa", class_token=False))
        self.momentum = (momentum, 1.0)
        self.numbers: dict[str, Any] = {"contexts": contexts, "targets": targets, "overlap": overlap}
        self.target_range, self.context_range = (target_scale, target_ratio), (context_scale, (1.0, 1.0))
        self.min_keep = min_keep
        for percent in range(101):
            self.block_sizes(percent / 100, percent / 100)  # raises where some would be too small
        self.predictor = BlockPredictor(
            self.network,
            width=predictor_width,
            depth=predictor_depth,
            heads=self.network.heads,
            outputs=self.network.width,
        )
        draw_weights(self, partial(nn.init.trunc_normal_, std=0.02))
        nn.init.trunc_normal_(self.predictor.mask_token, std=0.02)
        self.target = Momentum(self.network)

    @property
    def kept(self) -> nn.Module:
        """The momentum encoder."""
        return self.target.copy

    def forward(self, batch: Batch) -> Step:
        """Encode the contexts, predict the targets from each."""
        images = batch.only_view
        seen, asked = (masks.to(images.device) for masks in self.draw_masks(len(images), batch.progress))
        tokens = self.network(images, seen)
        predictions = self.predictor(tokens, seen, asked, len(images))
        targets = block_targets(self.target(images), asked, self.numbers["contexts"])
        terms = losses.ijepa(predictions, targets)
        representation = self.network.pool(tokens[: len(images)])
        return Step(terms.pop("loss"), terms, [representation], [representation])

    def block_sizes(self, u_target: float, u_context: float) -> dict[str, Any]:
        """Sizes of targets and contexts, each so far on the way through its range, and what they have to exceed."""
        target = block_size(u_target, self.network.grid, *self.target_range)
        context = block_size(u_context, self.network.grid, *self.context_range)
        smallest = min(math.prod(target), math.prod(context))
        min_keep = min(MIN_KEEP, smallest - 1) if self.min_keep is None else self.min_keep
        check_blocks(self.network.grid, target, context, min_keep)
        return {"target": target, "context": context, "min_keep": min_keep}

    def draw_masks(self, pictures: int, progress: Progress) -> tuple[Tensor, Tensor]:
        """Patches of contexts and of targets, (contexts * pictures, k) and (targets * pictures, q), set by set."""
        sizes = self.block_sizes(*size_draws(progress.step))
        blocks = place_blocks(pictures * world_size(), self.network.grid, draws=Draws(), **sizes, **self.numbers)
        seen, asked = (own_rows(cut_to_shortest(each)).transpose(0, 1).flatten(0, 1) for each in blocks)
        return seen, asked

    def after_step(self, progress: Progress) -> None:
        """Move the momentum encoder towards the trained one."""
        self.target.follow(self.network, linear(progress.share, *self.momentum))

    def compilable(self) -> list[nn.Module]:
        """Both encoders and the predictor."""
        return [self.network, self.target.copy, self.predictor]
