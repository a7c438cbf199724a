"""Every measure against a second formula in numpy, at n > d, n = d and n < d; and what each must ignore."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fullrank import collapse
from fullrank.collapse.measures import BLOCK
from fullrank.errors import InputError

SHAPES = [(50, 12), (20, 20), (9, 30)]
Measure = Callable[..., object]


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Correlated, of unequal scale, and with an offset."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(n, d)) @ random.normal(size=(d, d)) * np.geomspace(1, 0.1, d)
    return mixed + random.normal(size=d)


def covariance_eigenvalues(z: np.ndarray) -> np.ndarray:
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(z.T)))[::-1]
    return np.clip(values[: min(z.shape)], 0, None)


def entropy_rank(weights: np.ndarray) -> float:
    shares = weights[weights > 0] / weights.sum()
    return float(np.prod(shares**-shares))


def pairs(z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(z[i], z[j]) for i in range(len(z)) for j in range(i)]


def off_diagonal(z: np.ndarray) -> np.ndarray:
    table = np.corrcoef(z.T)
    return table[~np.eye(len(table), dtype=bool)]


REFERENCES: dict[str, Callable[[np.ndarray], object]] = {
    "effective_rank": lambda z: entropy_rank(np.sqrt(np.linalg.eigvalsh(np.cov(z.T))[-min(len(z) - 1, z.shape[1]) :])),
    "variance_rank": lambda z: entropy_rank(covariance_eigenvalues(z)),
    "participation_ratio": lambda z: np.trace(np.cov(z.T)) ** 2 / (np.cov(z.T) ** 2).sum(),
    "nesum": lambda z: np.trace(np.cov(z.T)) / np.linalg.norm(np.cov(z.T), 2),
    "stable_rank": lambda z: np.linalg.norm(z) ** 2 / np.linalg.norm(z, 2) ** 2,
    "pseudo_condition_number": lambda z: 1 / np.linalg.cond(z),
    "coherence": lambda z: len(z) / min(z.shape) * np.diag(z @ np.linalg.pinv(z)).max(),
    "self_cluster": lambda z: self_cluster(z),
    "eigenvalues": covariance_eigenvalues,
    "standard_deviation": lambda z: z.std(axis=0, ddof=1),
    "normalised_std": lambda z: np.std([row / np.linalg.norm(row) for row in z], axis=0, ddof=1).mean(),
    "absolute_correlation": lambda z: np.abs(off_diagonal(z)).mean(),
    "signed_correlation": lambda z: off_diagonal(z).mean(),
    "squared_correlation": lambda z: (off_diagonal(z) ** 2).mean(),
    "uniformity": lambda z: np.log(np.mean([np.exp(-2 * ((a - b) ** 2).sum()) for a, b in pairs(z)])),
}


def self_cluster(z: np.ndarray) -> float:
    n, d = z.shape
    squared = [np.dot(a, b) ** 2 / np.dot(a, a) / np.dot(b, b) for a, b in pairs(z)]
    expected = n * (n - 1) / d
    return (2 * np.sum(squared) - expected) / (n * (n - 1) - expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_measure_equals_its_formula(name: str, shape: tuple[int, int]) -> None:
    z = vectors(*shape)
    if name == "uniformity":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    ours, expected = getattr(collapse, name)(z), REFERENCES[name](z)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-12)
    tensor = torch.tensor(z)
    assert torch.equal(getattr(collapse, name)(tensor), ours)


def test_rankme_of_equal_singular_values_is_their_number() -> None:
    # eps is added after normalising: each of the 16 shares is 1/16 + 1e-7
    share = 1 / 16 + 1e-7
    np.testing.assert_allclose(float(collapse.rankme(np.eye(40, 16))), share ** (-16 * share), rtol=1e-12)


def test_centred_and_uncentred_ranks_differ_by_the_offset() -> None:
    z = vectors(60, 10) - 100
    assert float(collapse.rankme(z)) < 2.5
    np.testing.assert_allclose(collapse.effective_rank(z), collapse.effective_rank(z + 100), rtol=1e-9)


@pytest.mark.parametrize("name", ["rankme", "effective_rank", "participation_ratio", "stable_rank", "nesum"])
def test_ranks_ignore_rotation_and_scale(name: str) -> None:
    z, measure = vectors(40, 12), getattr(collapse, name)
    turned = 1e-5 * z @ np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12))).Q
    np.testing.assert_allclose(measure(turned), measure(z), rtol=1e-9)


@pytest.mark.parametrize("shape", [(300, 8), (8, 300)])
def test_small_singular_values_keep_their_digits(shape: tuple[int, int]) -> None:
    """A Gram matrix would lose all digits of the last ones."""
    random = np.random.default_rng(0)
    values = np.geomspace(1, 1e-9, 8)
    left, right = (np.linalg.qr(random.normal(size=(size, 8))).Q for size in shape)
    ours = collapse.singular_values(left * values @ right.T, centred=False)
    np.testing.assert_allclose(ours, values, rtol=1e-6)


def test_float32_input_is_computed_in_float64() -> None:
    z = vectors(50, 12).astype(np.float32)
    np.testing.assert_allclose(
        collapse.effective_rank(z), REFERENCES["effective_rank"](z.astype(np.float64)), rtol=1e-9
    )
    assert collapse.effective_rank(torch.tensor(z).half()).dtype == torch.float64


def test_constant_dimensions_are_left_out_of_correlations() -> None:
    z = vectors(30, 6)
    widened = np.insert(z, [2, 4], [0.1, 1e6], axis=1)
    assert collapse.constant_dimensions(widened).tolist() == [False, False, True, False, False, True, False, False]
    for name in ("absolute_correlation", "signed_correlation", "squared_correlation"):
        np.testing.assert_allclose(getattr(collapse, name)(widened), getattr(collapse, name)(z), rtol=1e-9)


def test_absolute_correlation_over_several_blocks() -> None:
    z = vectors(6, BLOCK + 30)
    np.testing.assert_allclose(collapse.absolute_correlation(z), np.abs(off_diagonal(z)).mean(), rtol=1e-9)


def test_uniformity_over_several_blocks() -> None:
    z = vectors(BLOCK + 30, 3) / 10
    distances = ((z[:, None] - z) ** 2).sum(axis=2)[np.tril_indices(len(z), -1)]
    np.testing.assert_allclose(collapse.uniformity(z, t=3.0), np.log(np.exp(-3 * distances).mean()), rtol=1e-9)


def test_alignment() -> None:
    x, y = vectors(7, 4), vectors(7, 4, seed=1)
    expected = np.mean([np.sqrt(((a - b) ** 2).sum()) ** 3 for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(collapse.alignment(x, y, alpha=3.0), expected, rtol=1e-12)


def test_alignment_and_uniformity_have_gradients() -> None:
    x, y = (torch.tensor(vectors(5, 3, seed=seed), requires_grad=True) for seed in (0, 1))
    assert torch.autograd.gradcheck(collapse.alignment, (x, y))
    assert torch.autograd.gradcheck(collapse.uniformity, (x / 3,))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_planted_exponent(alpha: float) -> None:
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 151)) - 0.5).Q
    axes = np.linalg.qr(axes - axes.mean(axis=0)).Q[:, :150]
    z = axes * np.arange(1, 151) ** (-alpha / 2)
    np.testing.assert_allclose(collapse.alpha_req(z), alpha, rtol=1e-6)
    np.testing.assert_allclose(collapse.alpha_req(z[:, :9]), alpha, rtol=1e-6)  # too few for the authors' range
    fit = collapse.power_law(torch.arange(1, 601).double() ** -alpha, weighted=False)
    assert (fit.alpha, fit.r2, fit.r2_100) == pytest.approx((alpha, 1, 1))


def test_weights_of_the_power_law_fit() -> None:
    """Against numpy's weighted polynomial fit, whose weights multiply the residuals before they are squared."""
    spectrum = np.sort(np.random.default_rng(0).exponential(size=80))[::-1].copy()
    ranks = np.arange(11, 61)
    slope = np.polyfit(np.log(ranks), np.log(spectrum[10:60]), 1, w=ranks**-0.5)[0]
    assert collapse.power_law(torch.tensor(spectrum), last=60).alpha == pytest.approx(-slope, rel=1e-9)


def test_power_law_of_a_spectrum_that_ends() -> None:
    with pytest.raises(InputError, match="eigenvalues 10 to 99 given for a power law, of which 2 are positive"):
        collapse.power_law(torch.cat([torch.ones(12), torch.zeros(100)]).double())


@pytest.mark.parametrize("count", [9, 4])
def test_lidar_equals_the_generalised_eigenvalues(count: int) -> None:
    noise, samples = (np.random.default_rng(seed).normal(size=(count, q, 5)) for seed, q in ((0, 4), (1, 1)))
    views = noise + 3 * samples
    means = views.mean(axis=1)
    between = np.cov(means.T, bias=True)
    gaps = (views - means[:, None]).reshape(-1, 5)
    within = sum(np.outer(gap, gap) for gap in gaps) / len(gaps) + 0.3 * np.eye(5)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real.clip(min=0)
    shares = values / values.sum() + 1e-3
    expected = np.exp(-(shares * np.log(shares)).sum())
    np.testing.assert_allclose(collapse.lidar(views, delta=0.3, eps=1e-3), expected, rtol=1e-9)


def test_a_single_point_has_rank_zero() -> None:
    zeros = np.zeros((5, 3))
    for name in ("effective_rank", "variance_rank", "participation_ratio", "nesum", "stable_rank"):
        assert float(getattr(collapse, name)(zeros)) == 0
    assert float(collapse.absolute_correlation(zeros)) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(3), r"shape \(3,\) given, n x d expected"),
        (np.zeros((0, 3)), r"shape \(0, 3\) given"),
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\) given"),
        (np.array([["a"]]), "values of type <U1 given, real numbers expected"),
        (torch.zeros(2, 3, dtype=torch.complex64), "complex numbers given"),
        (np.array([[1, np.nan], [np.inf, 0], [0, 0]]), "NaN or infinite values in 2 vectors"),
    ],
)
def test_what_is_no_set_of_vectors(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collapse.rankme(given)


@pytest.mark.parametrize("name", ["standard_deviation", "eigenvalues", "normalised_std", "uniformity", "alpha_req"])
def test_one_vector_has_no_spread(name: str) -> None:
    with pytest.raises(InputError, match="1 vector given, at least 2 expected"):
        getattr(collapse, name)(np.ones((1, 4)))


def test_pairs_and_views_of_the_wrong_shape() -> None:
    with pytest.raises(InputError, match=r"shapes \(3, 2\) and \(2, 2\) given, equal ones expected"):
        collapse.alignment(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match=r"shape \(3, 2\) given, n x q x d expected"):
        collapse.lidar(np.ones((3, 2)))
