"""Supervised: l = -log [exp(w_c y + b_c) / sum_k exp(w_k y + b_k)], c the label: the reference of the others.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385; the
recipe is that of the paper as pytorch/vision, references/classification, trains it.
"""

from __future__ import annotations

from torch import nn

from fullrank.errors import InputError
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import Branch, feature_width
from fullrank.schedules import Schedule
from fullrank.views import supervised_views


@register("supervised")
class Supervised(Method):
    """One view and its label: cross-entropy of a linear layer on Y. Z are the logits.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        facts: number of classes.
    """

    family = "reference"
    paper = "He et al., CVPR 2016, arXiv:1512.03385"
    views = staticmethod(supervised_views)
    published = Optimization(
        "sgd",
        learning_rate=0.1,
        weight_decay=1e-4,
        batch_size=256,
        epochs=90,
        schedule=Schedule(warmup_epochs=0, milestones=(1 / 3, 2 / 3)),
        decays_1d=True,
    )
    no_accumulation = ""
    one_network = "there is one view"

    def __init__(self, backbone: nn.Module, *, facts: DataFacts = DataFacts()) -> None:  # noqa: B008 - frozen
        if facts.classes < 2:
            raise InputError(f"supervised needs labels, and these data have {facts.classes} classes: choose a method")
        super().__init__(Branch(backbone, nn.Linear(feature_width(backbone), facts.classes)))

    def forward(self, batch: Batch) -> Step:
        """Cross-entropy with the labels."""
        if batch.labels is None:
            raise InputError("supervised needs labels, and this stream gives none: name a folder or an archive")
        representations, logits = self.network(batch.only_view)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        return Step(loss, {"cross_entropy": loss}, [representations], [logits])
