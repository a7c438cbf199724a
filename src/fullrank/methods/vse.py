"""VSE++: l = sum_i max_{j != i} [m + S_ij - S_ii]_+ + sum_j max_{i != j} [m + S_ij - S_jj]_+, S_ij = <v_i, c_j>.

Faghri, Fleet, Kiros, Fidler: "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives", BMVC 2018,
https://arxiv.org/abs/1707.05612; the authors' code is fartashf/vsepp.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Branch, UnitRows, feature_width
from fullrank.schedules import Progress, Schedule
from fullrank.views import vse_views


@register("vse")
class VSE(Method):
    """Images and captions in one space: an image scores higher with its caption than with the hardest of the others.

    An image's features, of length 1, go through one linear layer to the width of the text encoder; both sides end at
    length 1. Every pair of image and caption is a sample. The code starts from an ImageNet network that it keeps
    frozen until it is told to fine-tune; here that network is what is trained.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        second: captions (n, l), padded with 0 -> representations (n, `num_features`), the width of the joint space.
        margin: between the two scores; 0.05 in the paper's order embeddings.
        max_violation: the hardest negative of the batch, as in VSE++; else the sum over all negatives: VSE0, the code's
            default, with which an untrained network has to begin, or it stays where all scores are equal.
        measure: cosine, or order: how far a caption's absolute values exceed the image's, with its sign turned.
        clip: the largest norm of the gradient.
    """

    family = "image and text"
    paper = "Faghri et al., BMVC 2018, arXiv:1707.05612"
    views = staticmethod(vse_views)
    on_sphere = True
    published = Optimization(
        "adam",
        learning_rate=4e-4,
        weight_decay=0.0,
        batch_size=128,
        epochs=30,
        schedule=Schedule(warmup_epochs=0, milestones=(0.5,)),
    )
    second_is_text = True

    def __init__(
        self,
        backbone: nn.Module,
        *,
        second: nn.Module,
        margin: float = 0.2,
        max_violation: bool = True,
        measure: Literal["cosine", "order"] = "cosine",
        clip: float = 2.0,
    ) -> None:
        linear = nn.Linear(feature_width(backbone), feature_width(second))
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        joint = UnitRows(absolute=measure == "order")
        super().__init__(Branch(backbone, nn.Sequential(UnitRows(), linear, joint)))
        self.text = Branch(second, joint)
        self.options: dict[str, Any] = {"margin": margin, "max_violation": max_violation, "measure": measure}
        self.clip = clip

    def forward(self, batch: Batch) -> Step:
        """The hinge of both directions, summed over the batch."""
        (y_image, z_image), (y_text, z_text) = self.network(batch.views[0]), self.text(batch.views[1])
        terms = losses.vse(z_image, z_text, **self.options)
        return Step(terms.pop("loss"), terms, [y_image, y_text], [z_image, z_text])

    def embed_captions(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Representation and joint embedding of captions."""
        return self.text.embed(tokens)

    def before_step(self, progress: Progress) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self.parameters(), self.clip)
