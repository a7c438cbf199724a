"""VICReg's variance and covariance terms, added to any method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch

from fullrank import losses
from fullrank.errors import InputError, unknown
from fullrank.methods.method import Step
from fullrank.networks import unit


@dataclass(frozen=True)
class Regularizer:
    """variance * [v(Z) + v(Z')] / 2 + covariance * [c(Z) + c(Z')], VICReg's terms in its authors' scaling.

    With more than two embeddings, the mean of v over them and twice the mean of c.

    Where the loss sees the directions of Z alone (`Method.on_sphere`), Z is scaled to length sqrt(d) first: its
    dimensions then have a standard deviation of 1 when they are spread evenly, of 0 when all samples point one way.
    The terms of Z itself would not see that collapse: a cosine stays 1 between vectors that share a long mean, or of
    which one far from all others makes up the variance (SimSiam's last batch norm fixes it at 1), as
    `benchmarks/collapse.py` shows.

    Attributes:
        variance: weight of the hinge that keeps the standard deviation of every dimension of Z above 1; 25 in VICReg.
        covariance: weight of the squared off-diagonal covariances; 1 in VICReg.
    """

    variance: float = 0.0
    covariance: float = 0.0

    def __call__(self, step: Step, *, on_sphere: bool = False) -> Step:
        """The step with the two terms in its loss, and each by its name among its terms.

        Args:
            step: of any method.
            on_sphere: whether its loss sees the directions of its embeddings alone.
        """
        if not self.variance and not self.covariance:
            return step
        embeddings = [z.shape[1] ** 0.5 * unit(z) if on_sphere else z for z in step.embeddings]
        each = [losses.variance_covariance(z) for z in embeddings]
        variance = torch.stack([terms["variance"] for terms in each]).mean()
        covariance = 2 * torch.stack([terms["covariance"] for terms in each]).mean()
        loss = step.loss + self.variance * variance + self.covariance * covariance
        terms = {**step.terms, "regularize_variance": variance, "regularize_covariance": covariance}
        return replace(step, loss=loss, terms=terms)

    @classmethod
    def check(cls, weights: Mapping[str, float]) -> None:
        """Raises `InputError` for a term that does not exist or a weight below 0."""
        names = [field.name for field in fields(cls)]
        for name, weight in weights.items():
            if name not in names:
                raise unknown("term of regularize", name, names)
            if not weight >= 0:
                raise InputError(f"regularize.{name} is {weight}: give 0 or more")
