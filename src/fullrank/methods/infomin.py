"""InfoMin: l = (1 - b) CE(u(f(view 1)) k, ...) + b CE(u(g(pieces)) k, ...), k a momentum encoder's key of view 2.

Tian, Sun, Poole, Krishnan, Schmid, Isola: "What Makes for Good Views for Contrastive Learning?", NeurIPS 2020,
https://arxiv.org/abs/2005.10243; the authors' code is HobbitLong/PyContrast.
"""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Step, register
from fullrank.methods.moco import MoCo
from fullrank.networks import Branch, Head, Momentum, Puzzle, Queue, feature_width, unit
from fullrank.schedules import Progress
from fullrank.views import infomin_views


@register("infomin")
class InfoMin(Method):
    """MoCo with a second query, a puzzle of nine pieces, for the same key and queue, and with the strongest views.

    The momentum encoder follows after the optimiser, and never sees a puzzle. The authors shuffle the batch between
    GPUs against what batch norm tells; here its statistics are those of the global batch. Of the two schedules of their
    code this is the default; `cosine` of 800 epochs ends at a thousandth. Weight decay is on every parameter.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the layers behind the backbone, for the images and, apart, for the pieces; no batch norm;
            in the authors' network the hidden one is as wide as the backbone.
        pieces: of a puzzle.
        temperature: T.
        queue: how many keys are remembered.
        momentum: of the momentum encoder, constant.
        puzzle_weight: b.
    """

    family = "deep metric learning"
    paper = "Tian et al., NeurIPS 2020, arXiv:2005.10243"
    views = staticmethod(infomin_views)
    on_sphere = True
    published = MoCo.published
    no_accumulation = "every pass moves its queue"
    one_network = MoCo.one_network

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-128",
        pieces: int = 9,
        temperature: float = 0.15,
        queue: int = 65536,
        momentum: float = 0.999,
        puzzle_weight: float = 0.5,
    ) -> None:
        head, width = Head(projector), feature_width(backbone)
        z = head.output_width(width)
        branch = Branch(backbone, head.build(width, norm=False))
        super().__init__(Puzzle(branch, head.build(width, norm=False), z, pieces))
        self.target = Momentum(branch)
        self.queue = Queue(queue, z)
        self.temperature, self.momentum = temperature, momentum
        self.weights = {"image": 1 - puzzle_weight, "puzzle": puzzle_weight}

    def forward(self, batch: Batch) -> Step:
        """Image and puzzle against the key and the queue as it was; then the key enters it."""
        images, others, puzzles = batch.views
        representations, embeddings = self.network(images, puzzles)
        terms = self.contrast(*(unit(z) for z in (*embeddings, self.target(others)[1])))
        loss = self.weights["image"] * terms["image"] + self.weights["puzzle"] * terms["puzzle"]
        return Step(loss, terms, representations, embeddings)

    def contrast(
        self, images: Float[Tensor, "n d"], puzzles: Float[Tensor, "n d"], keys: Float[Tensor, "n d"]
    ) -> dict[str, Tensor]:
        """The two losses of queries of length 1 with the same keys and queue."""
        compare = partial(
            losses.info_nce, negatives=self.queue.rows.clone(), temperature=self.temperature, normalize=False
        )
        terms = {"image": compare(images, keys)["loss"], "puzzle": compare(puzzles, keys)["loss"]}
        if self.training:
            self.queue.push(keys)
        return terms

    def after_step(self, progress: Progress) -> None:
        """The momentum encoder follows the weights that the optimiser has just changed."""
        self.target.follow(self.network.get_submodule("branch"), self.momentum)
