"""SwAV: l = mean_a 1/(V - 1) sum_{v != a} -q_a' log softmax(C z_v / tau), q_a the balanced codes of view a.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020, https://arxiv.org/abs/2006.09882; the authors' code is facebookresearch/swav.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, MultiCrop, Prototypes, Queue, UnitRows, feature_width, freeze_early
from fullrank.schedules import Progress, Schedule
from fullrank.views import swav_views


@register("swav")
class SwAV(Method):
    """Every view predicts the codes of the large views: their assignment to prototypes that all get equally much.

    Any two views or more will do. Without multi-crop they are those of `views.swav_large_views`: `--views '[{scale:
    [0.08, 1], count: 2, interpolation: bilinear, jitter: [0.8, 0.8, 0.8, 0.2], blur: 0.5}]'`. The published run on
    batches of 256 has a learning rate of 0.6, no warm-up, and a queue of 3840 from epoch 15. In the authors' code each
    process has a queue of its own, of which all together make the length; here all have the same one.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers; it takes views of all sizes in one pass.
        prototypes: how many.
        temperature: tau, of the predictions.
        epsilon: of the codes; the smaller, the harder.
        sinkhorn_iterations: that balance the codes.
        assigned: which views get codes, from 0.
        freeze_epochs: in which the prototypes do not learn.
        queue: embeddings of earlier batches that are balanced together with the new ones; 0 for none.
        queue_from_epoch: when the queue begins to fill; it is used once it is full.
    """

    family = "canonical correlation"
    paper = "Caron et al., NeurIPS 2020, arXiv:2006.09882"
    views = staticmethod(swav_views)
    fewest_views = 2
    on_sphere = True
    published = Optimization(
        "larc",
        learning_rate=0.3,
        weight_decay=1e-6,
        batch_size=4096,
        epochs=800,
        schedule=Schedule(start_factor=0.3 / 4.8, end_factor=0.001, reaches_peak=True),
        decays_1d=True,
    )

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-128",
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        assigned: tuple[int, ...] = (0, 1),
        freeze_epochs: float = 1.0,
        queue: int = 0,
        queue_from_epoch: int = 15,
    ) -> None:
        head = Head(projector)
        layers = head.build(feature_width(backbone), norm=True)
        width = head.output_width(feature_width(backbone))
        super().__init__(MultiCrop(backbone, nn.Sequential(*layers, UnitRows())))
        self.prototypes = Prototypes(width, prototypes)
        if not assigned or min(assigned) < 0:
            raise InputError(f"assigned is {list(assigned)}: give the numbers of one or more views, from 0")
        self.queues = nn.ModuleList(Queue(queue, width, zeros=True) for _ in assigned if queue)
        self.assigned, self.temperature = assigned, temperature
        self.balance: dict[str, Any] = {"epsilon": epsilon, "iterations": sinkhorn_iterations}
        self.freeze_epochs, self.queue_from_epoch = freeze_epochs, queue_from_epoch

    def forward(self, batch: Batch) -> Step:
        """Codes of the assigned views, predicted from all others. Raises `InputError` where there are not so many."""
        if max(self.assigned) >= len(batch.views):
            raise InputError(f"assigned is {list(self.assigned)}, and the {len(batch.views)} views count from 0")
        if self.training:
            self.prototypes.normalise()
        representations, embeddings = self.network(batch.views)  # (v, n, y), (v, n, z)
        scores = self.prototypes(embeddings.flatten(0, 1))
        of_views = scores.detach().unflatten(0, embeddings.shape[:2])
        codes = [
            self.codes(of_views[view], embeddings[view], place, batch.progress)
            for place, view in enumerate(self.assigned)
        ]
        terms = losses.swav(scores, codes=torch.stack(codes), assigned=self.assigned, temperature=self.temperature)
        return Step(terms.pop("loss"), terms, list(representations), list(embeddings))

    @torch.no_grad()
    def codes(self, scores: Tensor, embeddings: Tensor, place: int, progress: Progress) -> Tensor:
        """Codes (n, k) of one view, balanced together with what its queue remembers once it is full."""
        everything = scores
        if self.queues and progress.epoch >= self.queue_from_epoch:
            queue: Any = self.queues[place]
            if queue.is_full:
                everything = torch.cat([scores, self.prototypes(queue.share)])
            if self.training:
                queue.push(embeddings)
        return losses.swav_codes(everything, **self.balance)[: len(scores)]

    def before_step(self, progress: Progress) -> None:
        """Prototypes stand still at first."""
        freeze_early(self.prototypes, self.freeze_epochs, progress)
