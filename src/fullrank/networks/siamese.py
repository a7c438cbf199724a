"""The siamese network of joint-embedding methods, with the four tricks against collapse as four switches.

Momentum encoder, stop-gradient, predictor and batch norm: BYOL has all four, SimSiam three, VICReg and Barlow Twins
batch norm alone. The methods differ in their losses, not in their networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.networks.backbone import feature_width
from fullrank.networks.branch import Branch, normalisation
from fullrank.networks.momentum import Momentum
from fullrank.networks.projector import each_view, mlp, parse_widths
from fullrank.schedules import Progress, Ramp, cosine

Normalisation = Literal["none", "std", "l2"]


@dataclass(frozen=True)
class Switches:
    """Which tricks a siamese network uses.

    Attributes:
        momentum: of a momentum encoder that makes the targets, at the start of the run; 0 for none.
        stop_gradient: whether the targets get no gradient; a momentum encoder's get none either way.
        predictor: widths of the predictor's layers after its input, such as 512-2048; none or nothing for no predictor.
        batch_norm: whether projector and predictor have batch norm.
        normalize_representation: none, std (over the batch) or l2 (to length 1), in front of the projector.
        normalize_embedding: the same behind it.
    """

    momentum: float = 0.0
    stop_gradient: bool = False
    predictor: str = ""
    batch_norm: bool = True
    normalize_representation: Normalisation = "none"
    normalize_embedding: Normalisation = "none"

    def __post_init__(self) -> None:
        if self.predictor == "none":
            object.__setattr__(self, "predictor", "")


@dataclass(frozen=True)
class Head:
    """The layers of a projector or predictor: widths as "8192-8192-8192", or none, and what `mlp` takes."""

    widths: str
    layers: Mapping[str, Any] = field(default_factory=dict)

    def build(self, width: int, *, norm: bool) -> nn.Sequential:
        """The layers for inputs of this width, with batch norm or without."""
        if self.is_identity:
            return nn.Sequential()
        return mlp([width, *parse_widths(self.widths)], **{"norm": norm} | dict(self.layers))

    def output_width(self, width: int) -> int:
        """Width of what comes out where inputs are `width` wide."""
        return width if self.is_identity else parse_widths(self.widths)[-1]

    @property
    def is_identity(self) -> bool:
        """Whether there are no layers, and the output is the input."""
        return self.widths in ("", "none")


@dataclass
class Sides:
    """V views through a siamese network; entry v of each list belongs to view v."""

    representations: list[Tensor]  # Y
    embeddings: list[Tensor]  # Z
    predictions: list[Tensor]  # the predictor's output, or Z where there is none
    targets: list[Tensor]  # what the other view's prediction is compared with: Z, detached, or a momentum encoder's

    def split(self, views: int) -> Sides:
        """The same for views that went through the network as one; lists that are one stay one."""
        lists = [self.representations, self.embeddings, self.predictions, self.targets]
        parts = {id(each): list(each[0].chunk(views)) for each in lists}
        return Sides(*(parts[id(each)] for each in lists))


class Siamese(nn.Module):
    """Views through one network or two, with predictor, stop-gradient and momentum encoder as `switches` say.

    Args:
        backbone: what the views go through; `num_features` wide.
        projector: layers behind it.
        switches: the tricks.
        predictor: how the layers of the predictor are made; their widths stand in `switches`.
        second: backbone of the second view where it goes through weights or an architecture of its own; it gets a
            projector of its own too.
        momentum_ramp: how the momentum goes from `switches.momentum` to 1 over the run.
        joint_pass: whether the views that share a network go through it in one batch, so that its batch norm
            statistics are those of all views; else each goes in a pass of its own, view 1 first.

    Raises:
        InputError: two networks together with a momentum encoder or a predictor, which follow or feed one.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Head,
        switches: Switches,
        *,
        predictor: Mapping[str, Any] | None = None,
        second: nn.Module | None = None,
        momentum_ramp: Ramp = cosine,
        joint_pass: bool = False,
    ) -> None:
        super().__init__()
        if second is not None and (switches.momentum or switches.predictor):
            raise InputError("two separate branches cannot have a momentum encoder or a predictor: leave those out")
        self.switches = switches
        self.momentum_ramp = momentum_ramp
        self.joint_pass = joint_pass
        self.branch = _branch(backbone, projector, switches)
        self.second = None if second is None else _branch(second, projector, switches)
        self.predictor: nn.Module | None = None
        if switches.predictor:
            head, width = Head(switches.predictor, predictor or {}), projector.output_width(feature_width(backbone))
            if head.output_width(width) != width:
                raise InputError(
                    f"predictor {switches.predictor} ends at {head.output_width(width)}, the projector at {width}: "
                    "give it the same last width"
                )
            self.predictor = head.build(width, norm=switches.batch_norm)
        self.target = Momentum(self.branch) if switches.momentum else None

    @property
    def backbone(self) -> nn.Module:
        """The network that is kept after training: the first one."""
        return self.branch.backbone

    def embed(self, images: Tensor) -> tuple[Float[Tensor, "n y"], Float[Tensor, "n z"]]:
        """Representation and embedding of whole images."""
        return self.branch.embed(images)

    def forward(self, views: list[Tensor]) -> Sides:
        """All views through their networks."""
        inputs = [joined(views)] if self.joint_pass and not self.second else views
        representations, embeddings = self._branches(inputs)
        predictions = each_view(self.predictor, embeddings) if self.predictor else embeddings
        targets = self.target(inputs)[1] if self.target else embeddings
        if self.switches.stop_gradient:
            targets = [target.detach() for target in targets]
        sides = Sides(representations, embeddings, predictions, targets)
        return sides if inputs is views else sides.split(len(views))

    def _branches(self, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Representations and embeddings, the first view's from the first branch and all others' from the second."""
        if not self.second:
            return self.branch(views)
        first, others = self.branch(views[:1]), self.second(views[1:])
        return first[0] + others[0], first[1] + others[1]

    def after_step(self, progress: Progress) -> None:
        """Move the momentum encoder towards the weights that the optimiser has just changed."""
        if self.target:
            self.target.follow(self.branch, self.momentum_ramp(progress.share, self.switches.momentum, 1.0))


def joined(views: list[Tensor]) -> Tensor:
    """All views as one batch. Raises `InputError` for views of several sizes."""
    sizes = [view.shape[-1] for view in views]
    if len(set(sizes)) > 1:
        raise InputError(f"views of {sizes} px share one pass here: give them one size in the view recipe")
    return torch.cat(views)


def _branch(backbone: nn.Module, projector: Head, switches: Switches) -> Branch:
    width = feature_width(backbone)
    before = normalisation(switches.normalize_representation, width)
    after = normalisation(switches.normalize_embedding, projector.output_width(width))
    head = projector.build(width, norm=switches.batch_norm)
    plain = all(isinstance(layer, nn.Identity) for layer in (before, after))
    return Branch(backbone, head if plain else nn.Sequential(before, *head, after))
