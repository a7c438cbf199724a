"""DirectCLR: l = 1/2 [CE(S) + CE(S')], S_ij = u(y_i[:d0]) u(y'_j[:d0]) / T, u(v) = v / |v|, CE against the diagonal.

Jing, Vincent, LeCun, Tian: "Understanding Dimensional Collapse in Contrastive Self-supervised Learning", ICLR 2022,
https://arxiv.org/abs/2110.09348; the authors' code is facebookresearch/directclr.
"""

from __future__ import annotations

from torch import nn

from fullrank import losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import Branch, FirstEntries, OnlineClassifier, feature_width
from fullrank.views import vicreg_views

PUBLISHED_SHARE = 360 / 2048  # of a ResNet-50's representation


@register("directclr")
class DirectCLR(Method):
    """Two views, no projector: the loss sees the first entries of Y only.

    The others get no gradient from it and learn through the residual connections of the last block. The authors give
    the learning rate, 4.8 at batch 4096, as it is; here it is 0.3 per 256 samples.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        dimensions: d0, how many entries the loss sees; when left out 360 of 2048, and as large a share of another
            width.
        temperature: T.
        online_classifier: train a linear classifier on the detached representation of view 1 beside it, as the code
            does.
        facts: number of classes, for the classifier.
    """

    family = "deep metric learning"
    paper = "Jing et al., ICLR 2022, arXiv:2110.09348"
    views = staticmethod(vicreg_views)
    on_sphere = True
    network: Branch
    published = Optimization("lars", learning_rate=0.3, weight_decay=1e-6, batch_size=4096, epochs=100)

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dimensions: int | None = None,
        temperature: float = 0.1,
        online_classifier: bool = False,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        width = feature_width(backbone)
        dimensions = round(PUBLISHED_SHARE * width) if dimensions is None else dimensions
        if not 1 <= dimensions <= width:
            raise InputError(f"dimensions is {dimensions}: this backbone has {width}, give 1 to {width}")
        super().__init__(Branch(backbone, FirstEntries(dimensions)))
        self.temperature = temperature
        self.classifier = OnlineClassifier(backbone, facts.classes) if online_classifier else None

    def forward(self, batch: Batch) -> Step:
        """The mean of both directions."""
        representations, embeddings = self.network(batch.views)
        terms = losses.directclr(*embeddings, temperature=self.temperature)
        if self.classifier:
            terms = self.classifier.add_to(terms, representations[0], batch.labels)
        return Step(terms.pop("loss"), terms, representations, embeddings)
