"""I-JEPA: l = mean h(g(f(x_context), places) - sg LN(f_t(x))_target), h smooth L1, f_t a momentum encoder of f.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas: "Self-Supervised Learning from Images with a
Joint-Embedding Predictive Architecture", CVPR 2023, https://arxiv.org/abs/2301.08243; the authors' code is
facebookresearch/ijepa.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from fullrank import losses
from fullrank.distributed import own_rows, world_size
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import BlockPredictor, Momentum, VisibleEncoder
from fullrank.networks.masked import block_targets, draw_weights
from fullrank.schedules import Progress, Schedule, linear
from fullrank.views import ijepa_views
from fullrank.views.masks import MultiBlock


@register("ijepa")
class IJEPA(Method):
    """One view; from a context block a predictor tells what a momentum encoder makes of four target blocks.

    The momentum encoder is what is kept and, as in the paper, evaluated: Y is the mean of its patch tokens after the
    final norm; in training Y is the mean over a context of the trained one. There is no projector, so Z is Y.

    As in the code, one random number gives a block's size and its shape, and no block covers the last row and column.
    Sizes of blocks follow from the step's number, places are drawn. Contexts are cut to the shortest of the batch of
    all processes, so that several equal one; the authors' code cuts each process's own. The paper has squared L2
    distances.

    Args:
        backbone: a timm vision transformer without class token; its weights are drawn anew, its positions fixed.
        momentum: of the target encoder at the start; it goes to 1 along a line.
        contexts: context blocks of a picture.
        targets: target blocks of a picture.
        context_scale: range of the share of the patches in a context, before targets are taken out of it.
        target_scale: range of the share of the patches in a target.
        target_ratio: range of a target's height / width.
        min_keep: patches that every block has more of; as published 10, on small grids as many as they allow.
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
        context_scale: Sequence[float] = (0.85, 1.0),
        target_scale: Sequence[float] = (0.15, 0.2),
        target_ratio: Sequence[float] = (0.75, 1.5),
        min_keep: int | None = None,
        predictor_width: int = 384,
        predictor_depth: int = 12,
    ) -> None:
        super().__init__(VisibleEncoder(backbone, "ijepa", class_token=False))
        self.momentum = (momentum, 1.0)
        self.masks = MultiBlock(contexts, targets, context_scale, target_scale, target_ratio, min_keep)
        self.masks.check(self.network.grid)
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
        targets = block_targets(self.target(images), asked, self.masks.contexts)
        terms = losses.ijepa(predictions, targets)
        representation = self.network.pool(tokens[: len(images)])
        return Step(terms.pop("loss"), terms, [representation], [representation])

    def draw_masks(self, pictures: int, progress: Progress) -> tuple[Tensor, Tensor]:
        """Patches of contexts and of targets, (contexts * pictures, k) and (targets * pictures, q), set by set."""
        masks = self.masks.draw(pictures * world_size(), self.network.grid, progress.step)
        seen, asked = (own_rows(each).transpose(0, 1).flatten(0, 1) for each in masks)
        return seen, asked

    def after_step(self, progress: Progress) -> None:
        """Move the momentum encoder towards the trained one."""
        self.target.follow(self.network, linear(progress.share, *self.momentum))

    def compilable(self) -> list[nn.Module]:
        """Both encoders and the predictor."""
        return [self.network, self.target.copy, self.predictor]
