"""VICReg: l(Z, Z') = lambda s(Z, Z') + mu [v(Z) + v(Z')] + nu [c(Z) + c(Z')].

Bardes, Ponce, LeCun: "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
ICLR 2022, https://arxiv.org/abs/2105.04906; the authors' code is facebookresearch/vicreg.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Siamese, Switches
from fullrank.views import vicreg_views


@register("vicreg")
class VICReg(Method):
    """Two views, one shared branch, three terms: invariance, variance, covariance.

    The paper adds the v of the two views, where the code takes their mean; it sums s over the dimensions, where the
    code averages; 25, 25 and 1 belong to the code. The paper ends at a learning rate of 0.002, the code at 0.0016; the
    paper's views are drawn alike, the code's differ in blur and solarization.

    With a predictor, invariance is the mean of its two directions; variance and covariance are those of Z.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        expander: widths of the projector's layers.
        invariance: weight lambda of the mean squared distance between the two views' embeddings.
        variance: weight mu of the hinge that keeps every dimension's standard deviation above 1.
        covariance: weight nu of the squared off-diagonal covariances.
        switches: the tricks of the siamese network.
        second: backbone of the second view, where it has its own.
    """

    family = "canonical correlation"
    paper = "Bardes et al., ICLR 2022, arXiv:2105.04906"
    views = staticmethod(vicreg_views)
    published = Optimization("lars", learning_rate=0.2, weight_decay=1e-6, batch_size=2048, epochs=1000)
    target_std = 1.0
    levers = {"variance": "variance", "covariance": "covariance"}  # noqa: RUF012
    one_network = ""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        expander: str = "8192-8192-8192",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        second: nn.Module | None = None,
    ) -> None:
        super().__init__(Siamese(backbone, Head(expander, {"output_bias": False}), switches, second=second))
        self.weights: dict[str, Any] = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, batch: Batch) -> Step:
        """The two views' embeddings and the loss between them."""
        sides = self.network(batch.views)
        if sides.targets is sides.predictions:
            terms = losses.vicreg(*sides.embeddings, **self.weights)
        else:
            terms = losses.vicreg_predicted(*sides.predictions, *sides.targets, *sides.embeddings, **self.weights)
        return Step(terms.pop("loss"), terms, sides.representations, sides.embeddings)
