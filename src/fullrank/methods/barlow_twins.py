"""Barlow Twins: l = sum_i (1 - c_ii)^2 + lambda sum_i sum_{j != i} c_ij^2, c the cross-correlation of two views.

Zbontar, Jing, Misra, LeCun, Deny: "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
https://arxiv.org/abs/2103.03230; the authors' code is facebookresearch/barlowtwins.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Siamese, Switches
from fullrank.views import vicreg_views


@register("barlowtwins")
class BarlowTwins(Method):
    """Two views, one shared branch; the cross-correlation of their embeddings is pulled to the identity.

    Lambda and weight decay are the code's; the paper has 5e-3 and 1.5e-6. On several processes the gradient is that of
    the joint batch; the authors' code divides it by their number once more, which moves biases and norms more slowly.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers.
        redundancy: weight lambda of the squared off-diagonal correlations.
        switches: the tricks of the siamese network; with a predictor, view 1's prediction meets view 2's target.
        second: backbone of the second view, where it has its own.
    """

    family = "canonical correlation"
    paper = "Zbontar et al., ICML 2021, arXiv:2103.03230"
    views = staticmethod(vicreg_views)  # the two papers share one augmentation set
    published = Optimization(
        "lars", learning_rate=0.2, bias_learning_rate=0.0048, weight_decay=1e-6, batch_size=2048, epochs=1000
    )
    levers = {"redundancy": "covariance"}  # noqa: RUF012
    one_network = ""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "8192-8192-8192",
        redundancy: float = 0.0051,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        second: nn.Module | None = None,
    ) -> None:
        head = Head(projector, {"hidden_bias": False, "output_bias": False})
        super().__init__(Siamese(backbone, head, switches, second=second))
        self.redundancy = redundancy

    def forward(self, batch: Batch) -> Step:
        """The two views' embeddings and the loss between them."""
        sides = self.network(batch.views)
        terms = losses.barlow_twins(sides.predictions[0], sides.targets[1], redundancy=self.redundancy)
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
