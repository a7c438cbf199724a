"""VICReg: variance, invariance, covariance.

Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
ICLR 2022, https://arxiv.org/abs/2105.04906; code: facebookresearch/vicreg, main_vicreg.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fullrank.distributed import world_size
from fullrank.errors import unknown
from fullrank.losses.inputs import Terms, at_least_float32, first_derivative, on_embeddings
from fullrank.losses.scatter import add_scatter_gradient, scatter, squared_norm

REDUCTIONS = ("code", "paper", "pseudocode")


@on_embeddings
def vicreg(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    reduction: str = "code",
) -> Terms:
    """invariance * s(x, y) + variance * [v(x) + v(y)] + covariance * [c(x) + c(y)], summed as `reduction` says.

        s(x, y) = mean_ik (x_ik - y_ik)^2          v(z) = mean_k max(0, gamma - sqrt(Var(z_k) + eps))
        c(z) = (1/d) sum_{k != l} C(z)_kl^2        Var, C unbiased: divided by n - 1

    Takes O(n d min(n, d)) operations and O(n d + min(n, d)^2) memory, in float32 or better whatever the precision
    of the inputs and of autocast. In data-parallel training n counts the rows of all processes and v
    and c are the same on each; s is the mean over the rows of this process, so its mean over processes is s.

    Args:
        x: embeddings of view 1, the rows of this process.
        y: embeddings of view 2; row i is the same sample as row i of `x`.
        invariance: weight of s.
        variance: weight of v.
        covariance: weight of c.
        gamma: the standard deviation below which v pushes.
        eps: added to the variance inside the root.
        reduction: "code", as the authors' code, to which 25/25/1 belong: v is halved, [v(x) + v(y)] / 2.
            "pseudocode", the paper's algorithm 1: v is not halved. "paper", its equations: nor is v, and s
            is (1/n) sum_i |x_i - y_i|^2, d times as large.

    Returns:
        `loss`, and unweighted `invariance`, `variance`, `covariance`.

    Raises:
        InputError: not two floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    s, v, c = _Terms.apply(gamma, eps, x, y)
    s = s * x.shape[1] if reduction == "paper" else s
    v = v / 2 if reduction == "code" else v
    loss = invariance * s + variance * v + covariance * c
    return {"loss": loss, "invariance": s, "variance": v, "covariance": c}


@on_embeddings
def vicreg_predicted(
    p1: Float[Tensor, "n d"],
    p2: Float[Tensor, "n d"],
    t1: Float[Tensor, "n d"],
    t2: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Terms:
    """`vicreg` of z1 and z2 where a predictor, a stop-gradient or a momentum encoder stands between the views.

    s is [s(p1, t2) + s(p2, t1)] / 2, which is s(z1, z2) where predictions and targets are the embeddings; v and c are
    those of the embeddings z.

    Args:
        p1: predictions of view 1.
        p2: predictions of view 2.
        t1: targets from view 1.
        t2: targets from view 2.
        z1: embeddings of view 1.
        z2: embeddings of view 2.
        invariance: weight of s.
        variance: weight of v.
        covariance: weight of c.

    Returns:
        `loss`, and unweighted `invariance`, `variance`, `covariance`.

    Raises:
        InputError: not floating point (n, d) of the same shape with n >= 2, or a loss that is not finite.
    """
    pairs = ((p1, t2), (p2, t1))
    s = torch.stack([_difference(p, t).square().mean() for p, t in pairs]).mean()
    _, v, c = _Terms.apply(1.0, 1e-4, z1, z2)
    loss = invariance * s + variance * v / 2 + covariance * c
    return {"loss": loss, "invariance": s, "variance": v / 2, "covariance": c}


@on_embeddings
def variance_covariance(
    z: Float[Tensor, "n d"],
    *,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
) -> Terms:
    """variance * v(z) + covariance * c(z), VICReg's regulariser of one branch, to add to any loss.

    v and c as in `vicreg`, whose variance term in the authors' code is the mean of v over the two views, not the
    sum: `vicreg(x, y)` is 25 s(x, y) + this at `variance=12.5` for x and for y.

    Args:
        z: embeddings, the rows of this process.
        variance: weight of v.
        covariance: weight of c.
        gamma: the standard deviation below which v pushes.
        eps: added to the variance inside the root.

    Returns:
        `loss`, and unweighted `variance`, `covariance`.

    Raises:
        InputError: not a floating point (n, d) with n >= 2, or a loss that is not finite.
    """
    _, v, c = _Terms.apply(gamma, eps, z)
    return {"loss": variance * v + covariance * c, "variance": v, "covariance": c}


class _Terms(torch.autograd.Function):
    """One or two views -> s (0 for one), the sum of v over views, the sum of c over views.

    One function for all of it, so that the gradient of s is what the products of v and c are added to.
    """

    @staticmethod
    def forward(ctx: Any, gamma: float, eps: float, *views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, d = len(views[0]) * world_size(), views[0].shape[1]
        scatters = [scatter(view) for view in views]
        variance = torch.stack([each.diagonal for each in scatters]).div_(n - 1)  # (views, d)
        std = (variance + eps).sqrt_()
        difference = _difference(*views)
        ctx.save_for_backward(difference, variance, std, *(part for each in scatters for part in each[:2]))
        ctx.n, ctx.gamma = n, gamma
        ctx.shape, ctx.dtypes = views[0].shape, [view.dtype for view in views]
        invariance = squared_norm(difference) / difference.numel()
        off_diagonal = torch.stack([each.off_diagonal for each in scatters]).sum()
        return invariance, (gamma - std).clamp_(min=0).sum() / d, off_diagonal / (d * (n - 1) ** 2)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, by_invariance: Tensor, by_variance: Tensor, by_covariance: Tensor) -> tuple[Any, ...]:
        difference, variance, std, *saved = ctx.saved_tensors
        # Averaging the processes' gradients divides by their number; v and c are shared, so it is put back here.
        share = world_size() / (std.shape[1] * (ctx.n - 1))
        by_product = by_covariance * (4 * share / (ctx.n - 1))
        columns = (std < ctx.gamma) * (by_variance * -share) / std
        if ctx.n < std.shape[1]:
            columns.addcmul_(variance, by_product, value=1 - ctx.n)
        pull = by_invariance * (2 / difference.numel())
        gradients = []
        for sign, column, dtype, centred, product in zip(
            (1, -1), columns, ctx.dtypes, saved[::2], saved[1::2], strict=False
        ):
            total = (difference * (sign * pull)).expand(ctx.shape).contiguous()
            add_scatter_gradient(total, centred, product, column, by_product)
            gradients.append(total.to(dtype))
        return None, None, *gradients


def _difference(x: Tensor, y: Tensor | None = None) -> Tensor:
    if y is None:
        return at_least_float32(x.new_zeros(1, 1))
    return at_least_float32(x) - at_least_float32(y)
