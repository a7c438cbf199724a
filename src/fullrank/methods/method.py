"""What a method is: a network around a loss, with its views and its published recipe as data.

Only this contract is known to the trainer; a new method is one file beside this one and one `@register` line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from fullrank.networks import Branch
from fullrank.registry import Registry
from fullrank.views import Recipe

METHODS: Registry[type[Method]] = Registry("method")
register = METHODS.register


@dataclass
class Batch:
    """V views of the same B samples, view v in `views[v]` (B, C, S, S), and the samples' positions in the set."""

    views: list[Tensor]
    index: Int[Tensor, " b"]


@dataclass
class Step:
    """What one forward pass gives: the scalar to differentiate, its named terms, and what to watch for collapse."""

    loss: Tensor
    terms: Mapping[str, Tensor]  # unweighted, by their names in the paper
    representations: list[Tensor]  # Y, one (B, y) a view
    embeddings: list[Tensor]  # Z, one (B, z) a view


@dataclass(frozen=True)
class Optimization:
    """Optimiser and schedule as published; learning rates are per 256 samples of the global batch."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    warmup_epochs: float = 10.0
    end_factor: float = 0.001  # the last learning rate as a fraction of the highest
    bias_learning_rate: float | None = None  # for one-dimensional parameters, where it differs


class Method(nn.Module):
    """A network around a loss. Subclasses set the class attributes, build a branch and write `forward`."""

    paper: ClassVar[str]
    views: ClassVar[Callable[[int], Recipe]]  # image size -> the published view recipe
    published: ClassVar[Optimization]
    # The standard deviation that the loss asks of every dimension of Z, where its scale means something.
    target_std: ClassVar[float | None] = None

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    @property
    def backbone(self) -> nn.Module:
        """The network that is kept after training."""
        return self.branch.backbone

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representation Y and embedding Z of a batch of images, for evaluation and diagnosis."""
        return self.branch.forward(images)  # not compiled: batches of any size come here, and few of each

    def forward(self, batch: Batch) -> Step:
        """One training pass over a batch of views."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step with the share of training done: momentum encoders, queues, banks."""

    def coefficients(self) -> Mapping[str, float]:
        """The weights of the loss terms, by the names of the terms: what a collapse warning may speak of."""
        return {}
