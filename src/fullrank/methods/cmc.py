"""CMC: l = NCE(u(f(L)), m_ab) + NCE(u(g(ab)), m_L): lightness L and colours ab of an image, each its row in a bank m.

Tian, Krishnan, Isola: "Contrastive Multiview Coding", ECCV 2020, https://arxiv.org/abs/1906.05849; the authors' code
is HobbitLong/CMC.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.methods.bank_contrast import BankContrast
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import Bank, Branch, Head, SideBySide, SplitColours, unit
from fullrank.schedules import Schedule
from fullrank.views import cmc_views

EPS = 1e-7


@register("cmc")
class CMC(Method):
    """Two encoders, of an image's lightness and of its colours; each tells the image by the other's memory of it.

    The network that is kept takes RGB and gives the features of both encoders, side by side. The authors' encoders are
    of half the usual width; here each is any backbone. Their README asks for 4096 negatives, their code for 16384; it
    also finds `softmax` and `ycbcr` better.

    Args:
        backbone: lightness (n, 1, h, w) -> representations (n, `num_features`).
        projector: widths of the layers behind each encoder, without batch norm.
        space: of the colours.
        negatives: rows that are drawn for each sample, for both sides alike.
        temperature: T.
        momentum: of the rows of the banks.
        softmax: whether the losses are cross-entropies over the rows in place of noise-contrastive estimation.
        second: the same for the two colours.
        facts: number of samples, for the banks; how the images are standardised.
    """

    family = "deep metric learning"
    paper = "Tian et al., ECCV 2020, arXiv:1906.05849"
    views = staticmethod(cmc_views)
    on_sphere = True
    published = Optimization(
        "sgd",
        learning_rate=0.06,
        weight_decay=1e-4,
        batch_size=128,
        epochs=240,
        schedule=Schedule(warmup_epochs=0, milestones=(1 / 2, 2 / 3, 5 / 6)),
        decays_1d=True,
    )
    branch_channels = (1, 2)
    remembers_samples = True
    no_accumulation = "every pass moves its memory banks"
    one_network = ""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        second: nn.Module,
        projector: str = "128",
        space: Literal["lab", "ycbcr", "ydbdr"] = "lab",
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        softmax: bool = False,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        if facts.channels != 3:
            channels = "1 channel" if facts.channels == 1 else f"{facts.channels} channels"
            raise InputError(f"cmc splits the colours of RGB images, and these have {channels}")
        encoders, head = SplitColours(backbone, second, space, facts.mean, facts.std), Head(projector)
        heads = SideBySide([head.build(width, norm=False) for width in encoders.widths], encoders.widths)
        super().__init__(Branch(encoders, heads))
        widths = [head.output_width(width) for width in encoders.widths]
        self.lightness, self.colours = (
            BankContrast(Bank(facts.samples, width, scaled_start=False), temperature, softmax, EPS) for width in widths
        )
        self.negatives, self.momentum, self.widths = negatives, momentum, encoders.widths

    def forward(self, batch: Batch) -> Step:
        """The two losses, added."""
        representations, embeddings = self.network(batch.views[0])
        sides = embeddings.chunk(2, 1)
        terms = self.contrast(unit(sides[0]), unit(sides[1]), batch.index)
        each = representations.split(self.widths, 1)
        return Step(terms["lightness"] + terms["colours"], terms, list(each), list(sides))

    def contrast(
        self, lightness: Float[Tensor, "n d"], colours: Float[Tensor, "n d"], index: Int[Tensor, " n"]
    ) -> dict[str, Tensor]:
        """Each side of length 1 against the other's bank as it was; then both move their rows."""
        drawn = self.lightness.bank.draw(index, self.negatives)
        terms = {"lightness": self.colours(lightness, drawn), "colours": self.lightness(colours, drawn)}
        if self.training:
            self.lightness.bank.update(index, lightness, self.momentum)
            self.colours.bank.update(index, colours, self.momentum)
        return terms
