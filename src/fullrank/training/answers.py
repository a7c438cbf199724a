"""What a classifier is taught and judged by: one label a picture, or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fullrank.data.source import Source
from fullrank.evaluation.protocol import accuracies, find_hits, mean_average_precision

Scores = tuple[dict[str, float], dict[str, float]]  # those that are quoted, and the first of every class; percent


class Answers(ABC):
    """How answers become a loss and scores.

    Attributes:
        quoted: the score by which epochs are compared.
        words: what it is called in a line.
    """

    quoted: ClassVar[str]
    words: ClassVar[str]

    @abstractmethod
    def loss(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, "b ..."]) -> Float[Tensor, ""]:
        """What is learnt from a batch."""

    @abstractmethod
    def keep(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, "b ..."]) -> Tensor:
        """What judging needs of a batch's logits, one row a picture."""

    @abstractmethod
    def judge(self, kept: Tensor, known: Int[Tensor, "m ..."]) -> Scores:
        """Scores of all pictures, from what was kept of them."""

    def notes(self, judged: np.ndarray) -> tuple[str, ...]:
        """What the reader of the scores has to know, of the answers that are judged."""
        return ()

    @abstractmethod
    def begin(self, head: nn.Linear, known: Int[Tensor, "n ..."]) -> None:
        """Change a classifier's first weights by what is known of the pictures to learn from."""


class OneLabel(Answers):
    """Cross-entropy; top-1, top-5 and the mean over classes of top-1."""

    quoted, words = "top1", "top-1"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def loss(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Its mean over pictures."""
        return cross_entropy(logits, known)

    def keep(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, " b"]) -> Tensor:
        """Whether the label came first, and whether among five."""
        return find_hits(logits[None], known)[0]

    def judge(self, kept: Tensor, known: Int[Tensor, " m"]) -> Scores:
        """See `accuracies`."""
        return accuracies(kept, known, torch.arange(self.classes))

    def begin(self, head: nn.Linear, known: Int[Tensor, " n"]) -> None:
        """Leave them."""


class SeveralLabels(Answers):
    """One cross-entropy a class, summed over classes; mean average precision of the classes that are judged.

    What is neither right nor wrong (-1) teaches nothing and is not judged. Biases begin at the log odds of the classes,
    as in `fit_heads`. Classes of which no picture is learnt from are not judged.

    Args:
        learnt: the targets of the pictures to learn from.
    """

    quoted, words = "map", "mAP"

    def __init__(self, learnt: np.ndarray) -> None:
        self.learnt = torch.from_numpy((learnt == 1).any(0))

    def loss(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, "b classes"]) -> Float[Tensor, ""]:
        """Its mean over pictures."""
        each = binary_cross_entropy_with_logits(logits, known.clamp_min(0).to(logits), reduction="none")
        return (each * (known >= 0)).sum(1).mean()

    def keep(self, logits: Float[Tensor, "b classes"], known: Int[Tensor, "b classes"]) -> Tensor:
        """The logits."""
        return logits

    def judge(self, kept: Tensor, known: Int[Tensor, "m classes"]) -> Scores:
        """See `mean_average_precision`; a class without a picture to learn from or to judge on is left out."""
        judged = ((known == 1).any(0) & self.learnt).nonzero()[:, 0]
        return mean_average_precision(kept[:, judged].numpy(), known[:, judged].numpy(), judged)

    def notes(self, judged: np.ndarray) -> tuple[str, ...]:
        """How many classes are left out."""
        left = int((~((judged == 1).any(0) & self.learnt.numpy())).sum())
        return (f"{left} of {len(self.learnt)} classes are left out: no train or no test sample",) if left else ()

    def begin(self, head: nn.Linear, known: Int[Tensor, "n classes"]) -> None:
        """Set the biases."""
        present, sure = (known == 1).sum(0), (known >= 0).sum(0)
        with torch.no_grad():
            head.bias.copy_(torch.logit((present + 1) / (sure + 2)))


def answers_of(source: Source) -> Answers:
    """Several labels where the source has targets."""
    return OneLabel(len(source.classes)) if source.targets is None else SeveralLabels(source.targets)
