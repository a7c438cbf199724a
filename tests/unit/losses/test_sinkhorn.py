"""Sinkhorn-Knopp: what its rows and columns sum to, and where exponentials would overflow or vanish."""

import pytest
import torch

from fullrank import losses


def scores(n: int, k: int, seed: int = 0) -> torch.Tensor:
    """Cosines of random embeddings and prototypes, some prototypes close to many samples."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(n, 6, generator=generator, dtype=torch.float64) + 0.5, dim=1)
    c = torch.nn.functional.normalize(torch.randn(k, 6, generator=generator, dtype=torch.float64), dim=1)
    return z @ c.T


def one_by_one(mass: torch.Tensor, iterations: int) -> torch.Tensor:
    """The definition, entry by entry."""
    q = [[float(value) for value in row] for row in mass]
    for _ in range(iterations):
        totals = [sum(row[k] for row in q) for k in range(len(q[0]))]
        q = [[value / total for value, total in zip(row, totals, strict=True)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return torch.tensor(q, dtype=mass.dtype)


@pytest.mark.parametrize(("n", "k"), [(12, 5), (4, 9), (2, 2)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_is_the_definition(n, k, iterations):
    logs = scores(n, k) / 0.1
    ours = losses.sinkhorn(logs, iterations=iterations)
    torch.testing.assert_close(ours, one_by_one(logs.exp(), iterations))


def test_rows_are_distributions_and_prototypes_get_the_same():
    codes = losses.swav_codes(scores(40, 8), epsilon=0.1, iterations=500)
    torch.testing.assert_close(codes.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("epsilon", [0.05, 0.0005])
def test_no_exponential_overflows_or_vanishes(epsilon):
    """In float32 exp(88) is infinite and exp(-104) is 0; a row or a prototype of zeros would have no codes."""
    s = scores(10, 6) + 10
    assert not torch.isfinite((s.float() / 0.05).exp()).any()
    exact, rounded = losses.swav_codes(s, epsilon=epsilon), losses.swav_codes(s.float(), epsilon=epsilon)
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=20 * 1e-6 / epsilon)


def test_half_precision_is_computed_in_float32():
    s = scores(6, 4).half()
    assert losses.swav_codes(s).dtype == torch.float32
    torch.testing.assert_close(losses.swav_codes(s), losses.swav_codes(s.float()))
