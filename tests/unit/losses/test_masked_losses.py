"""Losses at hidden patches: ratios of sums over all processes, and the averaged gradient that belongs to them."""

from pathlib import Path

import pytest
import torch

from fullrank import losses

ROWS, WORLD = 3, 2
GENERATOR = torch.Generator().manual_seed(0)
N = ROWS * WORLD
PREDICTIONS, TARGETS = torch.randn(2, N, 5, 7, generator=GENERATOR, dtype=torch.float64)
# Differently many of each picture, and none of the second process's last.
HIDDEN = torch.rand(N, 5, generator=GENERATOR) < torch.tensor([0.9, 0.2, 0.5, 0.8, 0.3, 0.0]).view(-1, 1)
LOGITS = torch.randn(N, 5, 9, generator=GENERATOR, dtype=torch.float64)
CODES = torch.randint(9, (N, 5), generator=GENERATOR)
IMAGES, PIXELS = torch.rand(2, N, 3, 8, 8, generator=GENERATOR, dtype=torch.float64)
PLACES = torch.randn(N, 9, 2, 2, generator=GENERATOR, dtype=torch.float64)


def terms_of(name: str, rows: slice) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The loss on some of the rows, and what its gradient is asked for."""
    if name == "mae":
        given = PREDICTIONS[rows].clone().requires_grad_()
        return losses.mae(given, TARGETS[rows], HIDDEN[rows]), given
    if name == "ijepa":
        given = PREDICTIONS[rows].clone().requires_grad_()
        return losses.ijepa(given, TARGETS[rows]), given
    if name == "beit":
        given = LOGITS[rows].clone().requires_grad_()
        return losses.beit(given[HIDDEN[rows]], CODES[rows][HIDDEN[rows]]), given
    given = PLACES[rows].clone().requires_grad_()
    return losses.dvae(IMAGES[rows], PIXELS[rows] * given[:, :1, :1, :1], given, kl=0.3), given


def find(rank: int, folder: Path) -> None:
    """What one of the processes finds, written to the folder."""
    results = {}
    for name in ("mae", "ijepa", "beit", "dvae"):
        terms, given = terms_of(name, slice(rank * ROWS, (rank + 1) * ROWS))
        terms["loss"].backward()
        results[name] = {key: term.detach() for key, term in terms.items()} | {"gradient": given.grad}
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def outcomes(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    processes(WORLD).run(find, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", ["mae", "ijepa", "beit", "dvae"])
def test_two_processes_have_the_gradient_of_one(name, outcomes):
    terms, given = terms_of(name, slice(None))
    terms["loss"].backward()
    averaged = torch.cat([outcome[name]["gradient"] for outcome in outcomes]) / WORLD
    torch.testing.assert_close(averaged, given.grad, rtol=1e-10, atol=1e-12)
    for key, term in terms.items():
        mean = torch.stack([outcome[name][key] for outcome in outcomes]).mean(0)
        torch.testing.assert_close(mean, term, rtol=1e-10, atol=1e-12)
