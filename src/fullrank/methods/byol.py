"""BYOL: l = |u(q(z)) - sg u(z'_t)|^2, symmetrised; u(v) = v / |v|, sg stops the gradient, t is a momentum encoder.

Grill, Strub, Altche et al.: "Bootstrap your own latent: A new approach to self-supervised Learning", NeurIPS 2020,
https://arxiv.org/abs/2006.07733; the authors' code is deepmind-research/byol.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import Head, OnlineClassifier, Siamese, Switches
from fullrank.schedules import Schedule
from fullrank.views import byol_views


@register("byol")
class BYOL(Method):
    """Two views; a predictor turns each view's embedding into a momentum encoder's embedding of the other.

    The momentum goes from 0.996 to 1 along a cosine, by the step's number from 0, after the optimiser. The target
    starts as a copy; the authors' code starts it from another seed. Its presets for 40, 100 and 300 epochs have
    a learning rate of 0.45, 0.45 and 0.3, a weight decay of 1e-6, and a momentum of 0.97, 0.99 and 0.99.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers.
        online_classifier: train a linear classifier on the detached representation of view 1 beside it, as the code
            does.
        switches: the tricks of the siamese network.
        facts: number of classes, for the classifier.
    """

    family = "self-distillation"
    paper = "Grill et al., NeurIPS 2020, arXiv:2006.07733"
    views = staticmethod(byol_views)
    published = Optimization(
        "lars", 0.2, weight_decay=1.5e-6, batch_size=4096, epochs=1000, schedule=Schedule(end_factor=0.0)
    )
    switches = Switches(momentum=0.996, stop_gradient=True, predictor="4096-256")
    on_sphere = True
    no_accumulation = ""
    one_network = "the momentum encoder makes the targets: it is the average of one network"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "4096-256",
        online_classifier: bool = False,
        switches: Switches = switches,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        layers = {"output_bias": False}
        super().__init__(Siamese(backbone, Head(projector, layers), switches, predictor=layers))
        self.classifier = OnlineClassifier(backbone, facts.classes) if online_classifier else None

    def forward(self, batch: Batch) -> Step:
        """Both directions of the loss, added."""
        sides = self.network(batch.views)
        terms = losses.byol(*sides.predictions, *sides.targets)
        if self.classifier:
            terms = self.classifier.add_to(terms, sides.representations[0], batch.labels)
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
