"""PIRL: l = w_p NCE(u(g(pieces)), m) + w_i NCE(u(f(image)), m), m the sample's row of a memory bank, u(v) = v / |v|.

Misra, van der Maaten: "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020,
https://arxiv.org/abs/1912.01991; the authors' code is facebookresearch/vissl.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank.losses.nce import EPS
from fullrank.methods.bank_contrast import BankContrast
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import Bank, Branch, Head, Puzzle, feature_width, unit
from fullrank.schedules import Schedule
from fullrank.views import pirl_views


@register("pirl")
class PIRL(Method):
    """An image and a puzzle of nine of its pieces, each to be told by its row of a memory bank from others' rows.

    The bank is a moving average of the images' embeddings; rows for the comparison are drawn anew for each of the two.
    The paper divides by a sum over the negatives and compares those with the puzzle alone; the code, as here, has one
    constant for all and a whole loss for each of the two. The recipe with perceptrons for heads is
    `--projector 2048-128 --softmax true --temperature 0.1`.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the layers behind the backbone, for the images and, apart, for the pieces; no batch norm.
        pieces: of a puzzle.
        negatives: rows that are drawn for each sample.
        temperature: T.
        momentum: of the rows of the bank.
        puzzle_weight: w_p.
        image_weight: w_i.
        softmax: whether the losses are cross-entropies over the rows in place of noise-contrastive estimation.
        facts: number of samples, for the bank.
    """

    family = "deep metric learning"
    paper = "Misra & van der Maaten, CVPR 2020, arXiv:1912.01991"
    views = staticmethod(pirl_views)
    on_sphere = True
    published = Optimization(
        "sgd",
        0.03,
        weight_decay=1e-4,
        batch_size=1024,
        epochs=800,
        schedule=Schedule(0, end_factor=0.001, per_epoch=True),
    )
    remembers_samples = True
    no_accumulation = "every pass moves its memory bank"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "128",
        pieces: int = 9,
        negatives: int = 32000,
        temperature: float = 0.07,
        momentum: float = 0.5,
        puzzle_weight: float = 0.5,
        image_weight: float = 0.5,
        softmax: bool = False,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        head, width = Head(projector), feature_width(backbone)
        z = head.output_width(width)
        of_pieces = head.build(width, norm=False)
        if len(of_pieces) > 1:
            of_pieces.append(nn.ReLU(inplace=True))  # the authors' perceptron of the pieces ends in one
        super().__init__(Puzzle(Branch(backbone, head.build(width, norm=False)), of_pieces, z, pieces))
        self.memory = BankContrast(Bank(facts.samples, z), temperature, softmax, EPS)
        self.negatives, self.momentum = negatives, momentum
        self.weights = {"puzzle": puzzle_weight, "image": image_weight}

    def forward(self, batch: Batch) -> Step:
        """Both against the bank as it was; then the images move their rows."""
        representations, embeddings = self.network(*batch.views)
        terms = self.contrast(embeddings[0], embeddings[1], batch.index)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return Step(loss, terms, representations, embeddings)

    def contrast(
        self, images: Float[Tensor, "n d"], puzzles: Float[Tensor, "n d"], index: Int[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """The two losses, the puzzles' first: Z is theirs."""
        given = {"puzzle": unit(puzzles), "image": unit(images)}
        bank = self.memory.bank
        terms = {name: self.memory(z, bank.draw(index, self.negatives)) for name, z in given.items()}
        if self.training:
            bank.update(index, given["image"], self.momentum)
        return terms
