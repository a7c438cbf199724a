"""CPC v2: l = sum_k mean_irc -log softmax_j(W_k c_irc . t_j) at j = i(r+k)c, t the patches, c the context above one.

Henaff, Srinivas, De Fauw et al.: "Data-Efficient Image Recognition with Contrastive Predictive Coding", ICML 2020,
https://arxiv.org/abs/1905.09272; the authors released no code, the appendix has pseudo-code.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank import losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Branch, RowPredictor, feature_width, refuse_fixed_size
from fullrank.schedules import Schedule
from fullrank.views import cpcv2_views

# Quarter turns that bring the patches in front of those that predict them below: down, up, then sideways.
TURNS = {1: (0,), 2: (0, 2), 4: (0, 2, 1, 3)}


@register("cpcv2")
class CPCv2(Method):
    """One view in patches on a grid; the context of all rows down to a place predicts the patches far below it.

    The kept backbone takes whole images; in training, Y and Z of an image are the means over its patches. The authors
    use layer norm, since batch norm lets a network cheat through the statistics that the patches share: a backbone
    without it, such as convnext_tiny, is the faithful choice.

    The appendix loops over `range(steps_to_ignore, steps_to_predict)`: with its 2 and 3 a single distance, 3 rows
    below. Here `steps_to_predict` counts the distances, as in later implementations: 3, 4 and 5 rows below, or the
    appendix to the letter with 1.

    Args:
        backbone: patches (n, c, p, p) -> representations (n, `num_features`).
        steps_to_ignore: rows below the next one that are left out, since their patches overlap the context.
        steps_to_predict: how many rows after those are predicted.
        directions: 1 for downwards, 2 for upwards too, 4 for both sides too; each has a context network and heads of
            its own, and their losses are added.
        target_dim: width of the targets, one linear map of the patch vectors.
        emb_scale: what the predictions are multiplied by.
        context_width: channels inside the blocks of the context network.
        context_blocks: how many there are; each sees one row further up.
    """

    family = "deep metric learning"
    paper = "Henaff et al., ICML 2020, arXiv:1905.09272"
    views = staticmethod(cpcv2_views)
    published = Optimization(
        "adam",
        learning_rate=1e-4,
        weight_decay=0.0,
        batch_size=512,
        epochs=200,
        schedule=Schedule(warmup_epochs=0, end_factor=1.0),
        options={"betas": (0.8, 0.999)},
    )

    def __init__(
        self,
        backbone: nn.Module,
        *,
        steps_to_ignore: int = 2,
        steps_to_predict: int = 3,
        directions: int = 4,
        target_dim: int = 64,
        emb_scale: float = 0.1,
        context_width: int = 256,
        context_blocks: int = 5,
    ) -> None:
        if directions not in TURNS:
            raise InputError(f"directions is {directions}: give one of {', '.join(map(str, TURNS))}")
        refuse_fixed_size(backbone, "cpcv2")
        width = feature_width(backbone)
        super().__init__(Branch(backbone, nn.Linear(width, target_dim)))
        self.rows = range(steps_to_ignore + 1, steps_to_ignore + 1 + steps_to_predict)
        self.turns = TURNS[directions]
        self.predictors = nn.ModuleList(
            RowPredictor(width, target_dim, self.rows, scale=emb_scale, hidden=context_width, blocks=context_blocks)
            for _ in self.turns
        )

    def forward(self, batch: Batch) -> Step:
        """Every patch through the backbone, in one batch; the losses of all directions, added."""
        patches = as_grid(batch.views, self.rows)
        vectors, targets = (values.unflatten(0, patches.shape[:3]) for values in self.network(patches.flatten(0, 2)))
        each = []
        for turn, predictor in zip(self.turns, self.predictors, strict=True):
            predictions = predictor(vectors.rot90(turn, (1, 2)))
            each.append(losses.cpc(predictions, targets.rot90(turn, (1, 2))))
        terms = {name: torch.stack([direction[name] for direction in each]).sum() for name in each[0]}
        return Step(terms.pop("loss"), terms, [vectors.mean((1, 2))], [targets.mean((1, 2))])


def as_grid(views: list[Tensor], rows: range) -> Float[Tensor, "n h h c p p"]:
    """The patches of the one view in their places. Raises `InputError` where that is not what there is."""
    side = math.isqrt(views[0].shape[1])
    if len(views) != 1 or views[0].ndim != 5 or side**2 != views[0].shape[1]:
        shapes = ", ".join(str(tuple(view.shape)) for view in views)
        raise InputError(f"cpcv2 got views {shapes}: give one view with grid and piece, and shuffle: false")
    if side < rows.stop:
        raise InputError(
            f"cpcv2 predicts up to {rows[-1]} rows below, and a grid of {side} has {side - 1}: "
            f"lower steps_to_predict, or give the view a grid of {rows.stop}"
        )
    return views[0].unflatten(1, (side, side))
