"""Embeddings whose state is known because it was planted."""

from collections.abc import Callable

import torch
from torch import Tensor

Plant = Callable[[int, int], Tensor]  # n, d -> n x d


def gaussian(n: int, d: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d)).Q


def with_variances(n: int, variances: Tensor) -> Tensor:
    """Gaussian with these variances along the axes."""
    return gaussian(n, len(variances)) * variances.sqrt()


def power_law(alpha: float) -> Plant:
    return lambda n, d: with_variances(n, torch.arange(1, d + 1, dtype=torch.float64) ** -alpha)


def sparse_relu(n: int, d: int) -> Tensor:
    """A sixth of the activations is positive, and the dimensions differ in scale by a factor of ten."""
    return torch.relu(gaussian(n, d) - 1) * torch.logspace(0, -1, d, dtype=torch.float64)


def mixed_relu(n: int, d: int) -> Tensor:
    return torch.relu(gaussian(n, d) @ gaussian(d, d) / d**0.5 - 0.5)


def few_factors(fall: float) -> Plant:
    """What healthy training on simple data gives: a plateau, a fall, then a tail that keeps decaying."""

    def plant(n: int, d: int) -> Tensor:
        plateau = max(d // 18, 1)
        tail = 0.5 / fall * (torch.arange(plateau, d, dtype=torch.float64) / plateau) ** -3
        return with_variances(n, torch.cat([torch.linspace(1, 0.5, plateau).double(), tail]))

    return plant


def low_rank(rank: int, noise: float = 0.0) -> Plant:
    def plant(n: int, d: int) -> Tensor:
        signal = gaussian(n, rank) @ gaussian(rank, d)
        return signal + noise * signal.std() * gaussian(n, d)

    return plant


def rank_share(share: float, noise: float) -> Plant:
    return lambda n, d: low_rank(max(round(share * min(n, d)), 1), noise)(n, d)


def point(noise: float) -> Plant:
    """Around a vector with Gaussian entries, noise relative to them."""
    return lambda n, d: gaussian(1, d) + noise * gaussian(n, d)


def clusters(count: int, noise: float) -> Plant:
    return lambda n, d: gaussian(count, d)[torch.arange(n) % count] + noise * gaussian(n, d)


def dead(share: float, value: float = 0.0) -> Plant:
    def plant(n: int, d: int) -> Tensor:
        vectors = gaussian(n, d)
        vectors[:, : round(share * d)] = value
        return vectors

    return plant


def duplicated(share: float) -> Plant:
    """The first dimensions repeat the others, with another scale and sign."""

    def plant(n: int, d: int) -> Tensor:
        vectors, count = gaussian(n, d), max(round(share * d), 1)
        copied = torch.arange(count) % (d - count)
        vectors[:, :count] = -3 * vectors[:, count:][:, copied]
        return vectors

    return plant
