"""VICReg: l(Z, Z') = lambda s(Z, Z') + mu [v(Z) + v(Z')] + nu [c(Z) + c(Z')].

Bardes, Ponce, LeCun: "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
ICLR 2022, https://arxiv.org/abs/2105.04906; the authors' code is facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Branch, feature_width, mlp
from fullrank.networks.projector import parse_widths
from fullrank.views import vicreg_views


@register("vicreg")
class VICReg(Method):
    """Two views, one shared branch, three terms: invariance, variance, covariance.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        expander: widths of the projector's layers.
        invariance: weight lambda of the mean squared distance between the two views' embeddings.
        variance: weight mu of the hinge that keeps every dimension's standard deviation above 1.
        covariance: weight nu of the squared off-diagonal covariances.
    """

    paper = "Bardes et al., ICLR 2022, arXiv:2105.04906"
    views = staticmethod(vicreg_views)
    published = Optimization("lars", learning_rate=0.2, weight_decay=1e-6, batch_size=2048, epochs=1000)
    target_std = 1.0

    def __init__(
        self,
        backbone: nn.Module,
        *,
        expander: str = "8192-8192-8192",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        widths = [feature_width(backbone), *parse_widths(expander)]
        super().__init__(Branch(backbone, mlp(widths, hidden_bias=True, output_bias=False)))
        self.weights: dict[str, Any] = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, batch: Batch) -> Step:
        """The two views' embeddings and the loss between them."""
        representations, (z1, z2) = self.branch.each(batch.views)
        terms = losses.vicreg(z1, z2, **self.weights)
        return Step(terms.pop("loss"), terms, representations, [z1, z2])

    def coefficients(self) -> Mapping[str, float]:
        """The three coefficients."""
        return self.weights
