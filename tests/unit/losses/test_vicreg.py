from __future__ import annotations

import pytest
import torch

from fullrank import losses
from tests.unit.losses.loss_formulas import GRID, covariance_matrix, term_errors, vicreg_code_terms, vicreg_terms, views


def expected_terms(x, y, invariance=25.0, variance=25.0, covariance=1.0, terms=vicreg_code_terms, **constants):
    s, v, c = terms(x, y, **constants)
    loss = invariance * s + variance * v + covariance * c
    return {"loss": loss, "invariance": s, "variance": v, "covariance": c}


@pytest.mark.parametrize(("n", "d"), GRID)
def test_equals_the_authors_code(n, d):
    x, y = views(n, d)
    errors = term_errors(losses.vicreg(x, y), expected_terms(x, y), (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), [(7, 20), (40, 9)])
def test_constants_are_where_the_formula_has_them(n, d):
    x, y = views(n, d)
    weights = {"invariance": 3.0, "variance": 0.7, "covariance": 11.0, "gamma": 1.7, "eps": 0.3}
    errors = term_errors(losses.vicreg(x, y, **weights), expected_terms(x, y, **weights), (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), [(7, 20), (40, 9)])
def test_paper_reduction_is_the_papers_equations(n, d):
    x, y = views(n, d)
    expected = expected_terms(x, y, terms=vicreg_terms)
    errors = term_errors(losses.vicreg(x, y, reduction="paper"), expected, (x, y))
    assert max(errors.values()) < 1e-10, errors


def test_pseudocode_reduction_is_the_papers_algorithm_1():
    x, y = views(7, 20)

    def algorithm_1(z_a, z_b, gamma=1.0, eps=1e-4):
        s = torch.nn.functional.mse_loss(z_a, z_b)
        v = sum(torch.relu(gamma - torch.sqrt(z.var(dim=0) + eps)).mean() for z in (z_a, z_b))
        c = sum((covariance_matrix(z).square().sum() - z.var(dim=0).square().sum()) / z.shape[1] for z in (z_a, z_b))
        return s, v, c

    expected = expected_terms(x, y, terms=algorithm_1)
    errors = term_errors(losses.vicreg(x, y, reduction="pseudocode"), expected, (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("term", ["loss", "invariance", "variance", "covariance"])
def test_gradient_equals_finite_differences(n, d, term):
    assert torch.autograd.gradcheck(lambda x, y: losses.vicreg(x, y)[term], views(n, d))


@pytest.mark.parametrize(("n", "d"), [(6, 10), (10, 6)])
def test_constant_column_has_std_sqrt_eps_and_no_gradient(n, d):
    x, y = views(n, d)
    with torch.no_grad():
        x[:, 2] = 4.0
    variance = losses.vicreg(x, y)["variance"]
    assert (1 - x.var(0).add(1e-4).sqrt()[2]).item() == pytest.approx(0.99)
    (gradient,) = torch.autograd.grad(variance, x)
    assert gradient[:, 2].abs().max() == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("n", "d"), [(6, 10), (10, 6)])
def test_gradient_of_a_weighted_sum_of_terms(n, d):
    x, y = views(n, d)
    ours, theirs = losses.vicreg(x, y), expected_terms(x, y)

    def mixture(terms):
        return terms["invariance"] * terms["covariance"] - 3 * terms["variance"] ** 2

    ours, theirs = (torch.autograd.grad(mixture(terms), (x, y)) for terms in (ours, theirs))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 7), (7, 20), (16, 16), (40, 9)])
def test_regulariser_of_one_branch(n, d):
    z, _ = views(n, d)
    _, twice_v, twice_c = vicreg_terms(z, z)
    expected = {"loss": 12.5 * twice_v / 2 + 2.0 * twice_c / 2, "variance": twice_v / 2, "covariance": twice_c / 2}
    terms = losses.variance_covariance(z, variance=12.5, covariance=2.0)
    errors = term_errors(terms, expected, (z,))
    assert max(errors.values()) < 1e-10, errors


def test_vicreg_is_invariance_and_the_regulariser_of_each_branch():
    x, y = views(7, 20)
    branches = [losses.variance_covariance(z, variance=12.5)["loss"] for z in (x, y)]
    total = 25 * (x - y).square().mean() + sum(branches)
    torch.testing.assert_close(total, losses.vicreg(x, y)["loss"], rtol=1e-12, atol=0)


def test_covariance_of_one_live_column_is_zero_not_negative():
    """n < d subtracts two equal numbers here; rounding must not give a negative sum of squares."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        z = torch.zeros(4, 9)
        z[:, 3] = 100 * torch.randn(4, generator=generator)
        assert losses.variance_covariance(z)["covariance"] >= 0
