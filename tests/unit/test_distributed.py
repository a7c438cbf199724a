"""Sums, gathers and batch norm over real processes, against one process that holds everything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fullrank import distributed
from fullrank.networks.batch_norm import synchronise_batch_norm

WORLD = 2


def held(rank: int) -> torch.Tensor:
    """What one process holds, (3, 2), different on each."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()


def weights(rank: int, *shape: int) -> torch.Tensor:
    """Each process weights the shared result differently."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 + rank), dtype=torch.float64)


def gather_then_weigh(rank: int, everyone: torch.Tensor) -> torch.Tensor:
    return (everyone.square() * weights(rank, 2 * 3, 2)).sum()


def sum_then_weigh(rank: int, total: torch.Tensor) -> torch.Tensor:
    return (total.exp() * weights(rank, 3, 2)).sum()


def uneven(rank: int) -> torch.Tensor:
    """More rows on the second process, and others."""
    generator = torch.Generator().manual_seed(10 + rank)
    return rank + torch.randn(3 + 2 * rank, 4, generator=generator, dtype=torch.float64)


def find(rank: int, folder: Path) -> None:
    """What one of the processes finds, written to the folder."""
    rows, value = held(rank), held(rank)
    everyone, total = distributed.gather_rows(rows), distributed.all_reduce_sum(value)
    gather_then_weigh(rank, everyone).backward()
    sum_then_weigh(rank, total).backward()
    norm, some = synchronise_batch_norm(nn.BatchNorm1d(4).double()), uneven(rank).requires_grad_()
    normalised = norm(some)
    (normalised * weights(rank, *normalised.shape)).sum().backward()
    results = {
        "objects": distributed.gather_objects([rank] * (rank + 1)),
        "normalised": normalised.detach(),
        "by_some": some.grad,
        "running": [norm.running_mean, norm.running_var],
        "facts": [distributed.is_distributed(), distributed.world_size(), distributed.rank()],
        "everyone": everyone.detach(),
        "own": distributed.own_rows(everyone).detach(),
        "by_rows": rows.grad,
        "total": total.detach(),
        "by_value": value.grad,
        "value": value.detach(),
        "transposed": distributed.gather_rows(held(rank).detach().T),
    }
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def outcomes(processes, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("found")
    processes(WORLD).run(find, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_each_process_knows_its_place(outcomes):
    assert [outcome["facts"] for outcome in outcomes] == [[True, 2, 0], [True, 2, 1]]


def test_rows_are_gathered_in_rank_order(outcomes):
    rows = [held(rank).detach() for rank in range(WORLD)]
    for rank, outcome in enumerate(outcomes):
        assert torch.equal(outcome["everyone"], torch.cat(rows))
        assert torch.equal(outcome["own"], rows[rank])
        assert torch.equal(outcome["transposed"], torch.cat([part.T for part in rows]))


def test_gradient_of_gathered_rows_is_the_sum_over_processes(outcomes):
    rows = [held(rank) for rank in range(WORLD)]
    sum(gather_then_weigh(rank, torch.cat(rows)) for rank in range(WORLD)).backward()
    for rank, outcome in enumerate(outcomes):
        torch.testing.assert_close(outcome["by_rows"], rows[rank].grad, rtol=1e-14, atol=0)


def test_sum_and_its_gradient(outcomes):
    values = [held(rank) for rank in range(WORLD)]
    total = sum(values)
    sum(sum_then_weigh(rank, total) for rank in range(WORLD)).backward()
    for rank, outcome in enumerate(outcomes):
        torch.testing.assert_close(outcome["total"], total.detach(), rtol=1e-14, atol=0)
        torch.testing.assert_close(outcome["by_value"], values[rank].grad, rtol=1e-14, atol=0)
        assert torch.equal(outcome["value"], values[rank].detach())


def test_one_process_is_left_alone():
    z = held(0)
    assert [distributed.is_distributed(), distributed.world_size(), distributed.rank()] == [False, 1, 0]
    assert distributed.gather_rows(z) is z
    assert distributed.own_rows(z) is z
    assert distributed.all_reduce_sum(z) is z


def test_objects_are_gathered_in_rank_order(outcomes):
    assert [outcome["objects"] for outcome in outcomes] == [[[0], [1, 1]]] * 2


def test_batch_norm_of_processes_with_different_numbers_of_rows(outcomes):
    """As a detector has: regions of pictures, and borders."""
    norm, rows = nn.BatchNorm1d(4).double(), torch.cat([uneven(rank) for rank in range(WORLD)]).requires_grad_()
    everything = norm(rows)
    (everything * torch.cat([weights(rank, 3 + 2 * rank, 4) for rank in range(WORLD)])).sum().backward()
    torch.testing.assert_close(torch.cat([outcome["normalised"] for outcome in outcomes]), everything.detach())
    torch.testing.assert_close(torch.cat([outcome["by_some"] for outcome in outcomes]), rows.grad)
    for outcome in outcomes:
        torch.testing.assert_close(outcome["running"], [norm.running_mean, norm.running_var])
