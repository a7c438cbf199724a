"""MoCo: l_i = -log [exp(q_i k_i / T) / (exp(q_i k_i / T) + sum_j exp(q_i n_j / T))], n a queue of earlier keys k.

He, Fan, Wu, Xie, Girshick: "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
https://arxiv.org/abs/1911.05722; the authors' code is facebookresearch/moco.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Branch, Head, Momentum, Queue, feature_width, unit
from fullrank.schedules import Schedule
from fullrank.views import moco_v1_views


@register("moco")
class MoCo(Method):
    """View 1 makes queries, a momentum encoder keys of view 2: negatives for later.

    The authors shuffle the batch between GPUs, so that the batch norm statistics of one GPU do not tell which key
    belongs to a query. Here the statistics are those of the global batch, the same for all, and there is nothing to
    shuffle. timm starts the last norm of every residual block at zero, the authors' ResNet does not
    (`--backbone_options.zero_init_last false`). Weight decay is on every parameter. The queue need not be a multiple of
    the batch.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers, without batch norm.
        temperature: T.
        queue: how many keys are remembered.
        momentum: of the momentum encoder, constant.
    """

    family = "deep metric learning"
    paper = "He et al., CVPR 2020, arXiv:1911.05722"
    views = staticmethod(moco_v1_views)
    on_sphere = True
    published = Optimization(
        "sgd",
        learning_rate=0.03,
        weight_decay=1e-4,
        batch_size=256,
        epochs=200,
        schedule=Schedule(warmup_epochs=0, milestones=(0.6, 0.8)),
        decays_1d=True,
    )
    no_accumulation = "every pass moves its momentum encoder and its queue"
    one_network = "the momentum encoder makes the keys: it is the average of one network"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "128",
        temperature: float = 0.07,
        queue: int = 65536,
        momentum: float = 0.999,
    ) -> None:
        head, width = Head(projector), feature_width(backbone)
        super().__init__(Branch(backbone, head.build(width, norm=False)))
        self.target = Momentum(self.network)
        self.queue = Queue(queue, head.output_width(width))
        self.temperature, self.momentum = temperature, momentum

    def forward(self, batch: Batch) -> Step:
        """Queries; the momentum encoder's move; keys; the loss against the queue as it was; then the keys enter it."""
        representations, queries = self.network(batch.views[0])
        if self.training:
            self.target.follow(self.network, self.momentum)
        keys = unit(self.target(batch.views[1])[1]).detach()
        negatives = self.queue.rows.clone()  # the backward pass reads them after the keys are written
        terms = losses.info_nce(queries, keys, negatives=negatives, temperature=self.temperature)
        if self.training:
            self.queue.push(keys)
        return Step(terms.pop("loss"), terms, [representations], [queries])
