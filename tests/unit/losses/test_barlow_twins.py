from __future__ import annotations

import pytest
import torch

from fullrank import losses
from fullrank.errors import InputError
from tests.unit.losses.loss_formulas import GRID, barlow_terms, term_errors, views


def expected_terms(x, y, redundancy=0.0051, scale=1.0, **constants):
    on_diagonal, off_diagonal = barlow_terms(x, y, **constants)
    return {
        "loss": scale * (on_diagonal + redundancy * off_diagonal),
        "invariance": scale * on_diagonal,
        "redundancy": scale * off_diagonal,
    }


@pytest.mark.parametrize(("n", "d"), GRID)
def test_equals_the_authors_code(n, d):
    x, y = views(n, d)
    errors = term_errors(losses.barlow_twins(x, y), expected_terms(x, y), (x, y))
    assert max(errors.values()) < 1e-9, errors


@pytest.mark.parametrize(("n", "d"), [(7, 20), (40, 9)])
def test_constants_are_where_the_formula_has_them(n, d):
    x, y = views(n, d)
    constants = {"redundancy": 0.3, "scale": 0.024, "eps": 0.2}
    errors = term_errors(losses.barlow_twins(x, y, **constants), expected_terms(x, y, **constants), (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), [(7, 20), (16, 16), (40, 9)])
def test_paper_reduction_is_the_papers_algorithm_1(n, d):
    x, y = views(n, d)
    expected = expected_terms(x, y, eps=0.0, unbiased=True)
    errors = term_errors(losses.barlow_twins(x, y, reduction="paper"), expected, (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), [(7, 20), (40, 9)])
def test_a_constant_column_has_no_value_in_the_paper(n, d):
    x, y = (view.detach() for view in views(n, d))
    x[:, 1] = 3.0
    assert torch.isfinite(losses.barlow_twins(x, y)["loss"])
    with pytest.raises(InputError, match="the loss is nan"):
        losses.barlow_twins(x, y, reduction="paper")


@pytest.mark.parametrize(("n", "d"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("reduction", ["code", "paper"])
@pytest.mark.parametrize("term", ["loss", "invariance", "redundancy"])
def test_gradient_equals_finite_differences(n, d, reduction, term):
    assert torch.autograd.gradcheck(lambda x, y: losses.barlow_twins(x, y, reduction=reduction)[term], views(n, d))


@pytest.mark.parametrize(("n", "d"), [(8, 30), (30, 8)])
def test_identical_views_without_redundancy_cost_nothing(n, d):
    x, _ = views(n, d)
    terms = losses.barlow_twins(x, x.detach().clone(), redundancy=0.0, eps=0.0)
    assert terms["loss"].abs() < 1e-20


@pytest.mark.parametrize(("n", "d"), [(8, 30), (30, 8)])
def test_value_does_not_depend_on_shift_and_scale_of_a_column(n, d):
    x, y = views(n, d)
    moved = x.detach() * torch.linspace(0.5, 90.0, d, dtype=x.dtype) - 7
    ours, theirs = losses.barlow_twins(moved, y, eps=0.0), losses.barlow_twins(x, y, eps=0.0)
    torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-10, atol=0)


def test_redundancy_of_one_live_column_is_zero_not_negative():
    """n < d subtracts two equal numbers here; rounding must not give a negative sum of squares."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.zeros(2, 4, 9)
        x[:, 3], y[:, 3] = torch.randn(2, 4, generator=generator)
        assert losses.barlow_twins(x, y)["redundancy"] >= 0
