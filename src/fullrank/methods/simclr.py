"""SimCLR: l_i = -log [exp(s_ip / T) / sum_{j != i} exp(s_ij / T)], s cosines of 2n embeddings, p the other view.

Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709; the authors' code is google-research/simclr.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Siamese, Switches
from fullrank.schedules import Schedule
from fullrank.views import simclr_views


@register("simclr")
class SimCLR(Method):
    """Two views; every embedding has to find its partner among all others of both.

    Both views go through the network in one batch, so batch norm sees them together. The published settings are those
    of the README's command; the paper has a projector of two layers, weight decay 1e-6 and up to 1000 epochs. The loss
    is on the code's scale, twice the paper's. Without a projector (`--projector none`) Z is Y, and the loss may leave
    dimensions of it unused.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers, or none; in the authors' network the hidden ones are as wide as
            the backbone.
        temperature: T.
        hidden_norm: whether similarities are cosines; else inner products.
        switches: the tricks of the siamese network; anchors are the predictions, candidates the targets.
        second: backbone of the second view, where it has its own; each view then has batch norm statistics of its own.
    """

    family = "deep metric learning"
    paper = "Chen et al., ICML 2020, arXiv:2002.05709"
    views = staticmethod(simclr_views)
    on_sphere = True
    published = Optimization(
        "lars",
        learning_rate=0.3,
        weight_decay=1e-4,
        batch_size=4096,
        epochs=100,
        schedule=Schedule(end_factor=0.0),
        options={"lr_in_momentum": True},
    )
    one_network = ""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-2048-128",
        temperature: float = 0.1,
        hidden_norm: bool = True,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        second: nn.Module | None = None,
    ) -> None:
        layers = {"hidden_bias": False, "output_bias": False, "output_norm": "scale", "init_std": 0.01}
        super().__init__(Siamese(backbone, Head(projector, layers), switches, second=second, joint_pass=True))
        self.constants: dict[str, Any] = {"temperature": temperature, "normalize": hidden_norm}

    def forward(self, batch: Batch) -> Step:
        """Both views as anchors, added."""
        sides = self.network(batch.views)
        if sides.targets is sides.predictions:
            terms = losses.nt_xent(*sides.embeddings, **self.constants)
        else:
            terms = losses.nt_xent_predicted(*sides.predictions, *sides.targets, **self.constants)
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
