"""Noise-contrastive estimation beside its formula, sample by sample; what does not overflow and what is refused."""

import math

import pytest
import torch

from fullrank import losses
from fullrank.errors import InputError
from fullrank.losses.nce import EPS

N = 50  # rows of the bank


def given(n=4, k=6, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    rows = torch.randn(n, 1 + k, d, generator=generator, dtype=torch.float64)
    z, rows = (torch.nn.functional.normalize(each, dim=-1) for each in (z, rows))
    return z.requires_grad_(), rows


def formula(z, rows, partition, temperature, eps):
    """-(1/n) sum_i [log p_i0 / (p_i0 + c + eps) + sum_j log c / (p_ij + c + eps)], as it is printed."""
    c, total = (rows.shape[1] - 1) / N, 0.0
    for i in range(len(z)):
        p = torch.exp(rows[i] @ z[i] / temperature) / partition
        total = total + torch.log(p[0] / (p[0] + c + eps)) + torch.log(c / (p[1:] + c + eps)).sum()
    return -total / len(z)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("eps", [EPS, 1e-7, 0.3])
def test_nce_is_its_formula(temperature, eps):
    z, rows = given()
    partition = torch.tensor(400.0, dtype=torch.float64)
    options = {"log_partition": partition.log(), "samples": N, "temperature": temperature, "eps": eps}
    terms = losses.nce(z, rows=rows, **options)
    expected = formula(z, rows, partition, temperature, eps)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(loss, z)[0] for loss in (terms["loss"], expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert set(terms) == {"loss", "nce"}


def test_partition_is_the_mean_over_batch_and_rows():
    z, rows = given(n=3)
    z = z.detach()
    mean = sum(math.exp(float(row @ one) / 0.2) for one, own in zip(z, rows, strict=True) for row in own) / (3 * 7)
    found = losses.nce_log_partition(z, rows, N, 0.2)
    assert float(found) == pytest.approx(math.log(N * mean), rel=1e-12)
    assert not found.requires_grad


def test_a_low_temperature_does_not_overflow():
    z, rows = (each.detach().float() for each in given())
    rows[:, 0] = z  # exp(1 / 0.005) is beyond float32
    constant = losses.nce_log_partition(z, rows, N, 0.005)
    loss = losses.nce(z.requires_grad_(), rows=rows, log_partition=constant, samples=N, temperature=0.005)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_half_precision_is_computed_in_float32():
    z, rows = given(n=8, k=40)
    constant = torch.tensor(6.0)
    exact = losses.nce(z.detach().bfloat16().double(), rows=rows, log_partition=constant, samples=N)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.nce(z.detach().bfloat16(), rows=rows.float(), log_partition=constant, samples=N)["loss"]
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=1e-5)


def test_rows_get_no_gradient():
    z, rows = given()
    rows.requires_grad_()
    losses.nce(z, rows=rows, log_partition=torch.zeros(()), samples=N)["loss"].backward()
    assert rows.grad is None


@pytest.mark.parametrize("shape", [(4, 7, 2), (3, 7, 3), (4, 1, 3), (4, 3)])
def test_rows_of_another_shape_are_an_error(shape):
    z, _ = given()
    with pytest.raises(InputError, match=r"expected \(4, 1 \+ k, 3\)"):
        losses.nce(z, rows=torch.zeros(shape, dtype=torch.float64), log_partition=torch.zeros(()), samples=N)
