"""MoCo v2: l_i = -log [exp(q_i k_i / T) / (exp(q_i k_i / T) + sum_j exp(q_i n_j / T))], with SimCLR's head and views.

Chen, Fan, Girshick, He: "Improved Baselines with Momentum Contrastive Learning", 2020,
https://arxiv.org/abs/2003.04297; the authors' code is facebookresearch/moco.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fullrank.methods.method import register
from fullrank.methods.moco import MoCo
from fullrank.schedules import Schedule
from fullrank.views import moco_v2_views


@register("mocov2")
class MoCoV2(MoCo):
    """MoCo with a perceptron as head, temperature 0.2, a cosine and stronger views.

    These are the flags mlp, moco-t 0.2, cos and aug-plus of the authors' command.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers, without batch norm; in the authors' network the hidden one is as
            wide as the backbone.
        temperature: T.
        queue: how many keys are remembered.
        momentum: of the momentum encoder, constant.
    """

    paper = "Chen et al., 2020, arXiv:2003.04297"
    views = staticmethod(moco_v2_views)
    published = replace(MoCo.published, schedule=Schedule(warmup_epochs=0, end_factor=0.0, per_epoch=True))

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-128",
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
    ) -> None:
        super().__init__(backbone, projector=projector, temperature=temperature, queue=queue, momentum=momentum)
