"""MSN: assignments, targets and the regularisers, written out."""

import math

import pytest
import torch

from fullrank import losses

N, D, K, VIEWS = 4, 6, 5, 3


def given(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Anchors, target embeddings, prototypes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (VIEWS * N, N, K))


def assignments(rows: torch.Tensor, prototypes: torch.Tensor, smoothing: float) -> torch.Tensor:
    cosines = torch.cosine_similarity(rows[:, None], prototypes[None], dim=2)
    labels = torch.eye(K, dtype=torch.float64) * (1 - smoothing) + smoothing / K
    return (cosines / 0.1).softmax(1) @ labels


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_terms_are_the_definition(smoothing):
    anchors, whole, prototypes = given()
    p = assignments(anchors, prototypes, smoothing)
    sharp = assignments(whole, prototypes, smoothing) ** 4
    targets = sharp / sharp.sum(1, keepdim=True)
    shared = {"temperature": 0.1, "smoothing": smoothing}
    ours = losses.msn_targets(whole, prototypes, balanced=False, **shared)
    torch.testing.assert_close(ours, targets)
    torch.testing.assert_close(losses.msn_targets(whole, prototypes, **shared), losses.sinkhorn(targets.log()))
    terms = losses.msn(anchors, targets=targets, prototypes=prototypes, me_max=2.0, entropy=0.5, **shared)
    mean = p.mean(0)
    torch.testing.assert_close(terms["cross_entropy"], -(targets.repeat(VIEWS, 1) * p.log()).sum(1).mean())
    torch.testing.assert_close(terms["me_max"], math.log(K) + (mean * mean.log()).sum())
    torch.testing.assert_close(terms["entropy"], -(p * p.log()).sum(1).mean())
    total = terms["cross_entropy"] + 2 * terms["me_max"] + 0.5 * terms["entropy"]
    torch.testing.assert_close(terms["loss"], total)


def test_prototypes_learn_from_anchors_alone():
    anchors, whole, prototypes = (rows.requires_grad_() for rows in given())
    targets = losses.msn_targets(whole, prototypes)
    assert not targets.requires_grad
    losses.msn(anchors, targets=targets, prototypes=prototypes)["loss"].backward()
    assert whole.grad is None
    assert anchors.grad.abs().sum() > 0
    assert prototypes.grad.abs().sum() > 0


def test_assignments_that_underflow_keep_the_gradient_finite():
    """At a low temperature float32 knows no probability of the prototypes that are far away."""
    anchors, whole, prototypes = (rows.float() for rows in given())
    anchors, prototypes[0] = anchors + 5, -1.0  # the first prototype is opposite to all anchors
    anchors.requires_grad_()
    prototypes.requires_grad_()
    shared = {"temperature": 0.002}
    targets = losses.msn_targets(whole, prototypes, **shared)
    losses.msn(anchors, targets=targets, prototypes=prototypes, entropy=1.0, **shared)["loss"].backward()
    assert torch.isfinite(anchors.grad).all()
    assert torch.isfinite(prototypes.grad).all()
