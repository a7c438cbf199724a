"""Prototypes: their lengths, their scores, and when they learn."""

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from fullrank.networks import Prototypes, ScaledPrototypes, freeze_early
from fullrank.schedules import Progress


def test_normalised_prototypes_give_cosines():
    prototypes = Prototypes(5, 7)
    prototypes.normalise()
    z = torch.randn(3, 5)
    expected = torch.cosine_similarity(z[:, None], prototypes.weight[None], dim=2) * z.norm(dim=1, keepdim=True)
    torch.testing.assert_close(prototypes(z), expected)
    assert prototypes.weight.requires_grad


@pytest.mark.parametrize("fixed", [True, False])
def test_scaled_prototypes_are_torchs_weight_normalisation(fixed):
    ours = ScaledPrototypes(5, 7, fixed_length=fixed)
    theirs = weight_norm(torch.nn.Linear(5, 7, bias=False))
    with torch.no_grad():
        ours.weight_g.copy_(torch.rand(7, 1) + 0.5)
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    z = torch.randn(3, 5)
    torch.testing.assert_close(ours(z), theirs(z))
    assert ours.weight_g.requires_grad != fixed
    assert ScaledPrototypes(5, 7).weight_g.unique().tolist() == [1.0]


@pytest.mark.parametrize("prototypes", [Prototypes(64, 7), ScaledPrototypes(64, 7)])
def test_scores_are_not_rounded_under_autocast(prototypes):
    z = torch.randn(3, 64)
    exact = prototypes(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(prototypes(z), exact)


@pytest.mark.parametrize(("step", "held"), [(0, True), (2, True), (3, False), (9, False)])
def test_prototypes_stand_still_in_the_first_epochs(step, held):
    prototypes = Prototypes(2, 2)
    prototypes(torch.ones(1, 2)).sum().backward()
    freeze_early(prototypes, 1.5, Progress(step, 20, 2.0))
    assert (prototypes.weight.grad is None) == held
