"""VICReg's terms added to another loss, beside NumPy."""

import numpy as np
import pytest
import torch

from fullrank.methods import Regularizer, Step


def terms(z):
    """v and c of one embedding."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    hinge = np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
    return hinge, (covariance**2).sum() / z.shape[1] - (np.diag(covariance) ** 2).sum() / z.shape[1]


def step(*embeddings):
    return Step(torch.tensor(3.0), {"own": torch.tensor(3.0)}, [], [torch.from_numpy(z) for z in embeddings])


@pytest.fixture
def embeddings():
    generator = np.random.default_rng(3)
    return [generator.normal(0.4, 0.6, (16, 6)) for _ in range(3)]


@pytest.mark.parametrize("on_sphere", [False, True])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_the_terms_are_those_of_z_or_of_its_directions(embeddings, views, on_sphere):
    given = embeddings[:views]
    seen = [z / np.linalg.norm(z, axis=1, keepdims=True) * 6**0.5 for z in given] if on_sphere else given
    v, c = np.array([terms(z) for z in seen]).T
    done = Regularizer(variance=5.0, covariance=0.5)(step(*given), on_sphere=on_sphere)
    assert done.terms["regularize_variance"].item() == pytest.approx(v.mean(), rel=1e-12)
    assert done.terms["regularize_covariance"].item() == pytest.approx(2 * c.mean(), rel=1e-12)
    assert done.loss.item() == pytest.approx(3 + 5 * v.mean() + c.mean(), rel=1e-12)
    assert done.terms["own"] == 3


def test_a_long_mean_is_a_collapse_of_directions_alone():
    """What a cosine cannot tell apart has the full standard deviation: only its directions show the collapse."""
    z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1e3
    regularizer = Regularizer(variance=1.0)
    assert regularizer(step(z.numpy())).terms["regularize_variance"] == 0
    assert regularizer(step(z.numpy()), on_sphere=True).terms["regularize_variance"] > 0.9


def test_without_weights_the_step_is_left_alone():
    given = step(np.ones((4, 3)))
    assert Regularizer()(given, on_sphere=True) is given
