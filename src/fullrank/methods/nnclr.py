"""NNCLR: l_i = -log [exp(nn(z_i) p'_i / T) / sum_j exp(nn(z_i) p'_j / T)], nn(z) the nearest row of a queue.

Dwibedi, Aytar, Tompson, Sermanet, Zisserman: "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning
of Visual Representations", ICCV 2021, https://arxiv.org/abs/2104.14548; the authors released no code, the equations are
those of their pseudo-code and of vturrisi/solo-learn.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Queue, Siamese, Switches, feature_width, unit
from fullrank.schedules import Schedule
from fullrank.views import byol_views


@register("nnclr")
class NNCLR(Method):
    """Two views; the nearest neighbour of one has to find the prediction of the other.

    Both neighbours are looked up before view 1's embeddings enter the queue. Only predictions get gradient. The paper
    leaves open whether the layers of the heads have biases: they have, as in solo-learn.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers.
        temperature: T.
        queue: how many embeddings are remembered.
        switches: the tricks of the siamese network; with a momentum encoder, neighbours are those of its embeddings.
    """

    family = "deep metric learning"
    paper = "Dwibedi et al., ICCV 2021, arXiv:2104.14548"
    views = staticmethod(byol_views)
    on_sphere = True
    published = Optimization(
        "lars", 0.3, weight_decay=1e-6, batch_size=4096, epochs=1000, schedule=Schedule(end_factor=0.0)
    )
    switches = Switches(predictor="4096-256")

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-2048-256",
        temperature: float = 0.1,
        queue: int = 98304,
        switches: Switches = switches,
    ) -> None:
        head = Head(projector, {"output_norm": "affine"})
        super().__init__(Siamese(backbone, head, switches))
        self.temperature = temperature
        self.queue = Queue(queue, head.output_width(feature_width(backbone)))

    def forward(self, batch: Batch) -> Step:
        """The mean of both directions; then view 1's embeddings enter the queue."""
        sides = self.network(batch.views)
        neighbours = [self.queue.rows[self.queue.nearest(z)] for z in sides.targets]
        terms = losses.nnclr(*neighbours, *sides.predictions, temperature=self.temperature)
        if self.training:
            self.queue.push(unit(sides.targets[0]))
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
