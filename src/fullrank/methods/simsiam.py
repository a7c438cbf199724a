"""SimSiam: l = -1/2 [cos(h(z), sg z') + cos(h(z'), sg z)], sg stops the gradient.

Chen, He: "Exploring Simple Siamese Representation Learning", CVPR 2021, https://arxiv.org/abs/2011.10566; the authors'
code is facebookresearch/simsiam.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Siamese, Switches
from fullrank.schedules import Schedule
from fullrank.views import moco_v2_views


@register("simsiam")
class SimSiam(Method):
    """Two views; a predictor turns each view's embedding into the other's, which gets no gradient.

    Weight decay is on every parameter, and the predictor's learning rate stays the highest (`--fix-pred-lr` of the
    authors' command, off by default in their code).

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers; in the authors' network the hidden ones are as wide as the
            backbone.
        switches: the tricks of the siamese network.
    """

    family = "self-distillation"
    paper = "Chen & He, CVPR 2021, arXiv:2011.10566"
    views = staticmethod(moco_v2_views)
    published = Optimization(
        "sgd",
        learning_rate=0.05,
        weight_decay=1e-4,
        batch_size=512,
        epochs=100,
        schedule=Schedule(warmup_epochs=0, end_factor=0.0, per_epoch=True),
        decays_1d=True,
        constant_rate=("network.predictor.*",),
    )
    switches = Switches(stop_gradient=True, predictor="512-2048")
    on_sphere = True
    no_accumulation = ""

    def __init__(
        self, backbone: nn.Module, *, projector: str = "2048-2048-2048", switches: Switches = switches
    ) -> None:
        head = Head(projector, {"hidden_bias": False, "output_norm": "plain"})
        super().__init__(Siamese(backbone, head, switches, predictor={"hidden_bias": False}))

    def forward(self, batch: Batch) -> Step:
        """The mean of both directions."""
        sides = self.network(batch.views)
        terms = losses.simsiam(*sides.predictions, *sides.targets)
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
