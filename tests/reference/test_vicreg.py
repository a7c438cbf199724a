"""VICReg's loss: total, three terms and all their gradients; and two processes."""

from typing import Any

import numpy as np
import pytest
import torch

from fullrank.losses import vicreg

LOSSES = ["vicreg_loss_n_gt_d", "vicreg_loss_n_eq_d", "vicreg_loss_n_lt_d", "vicreg_loss_edge"]
# The authors divide the covariance by their configured batch size - 1, also in a last batch with fewer rows, we
# by the rows - 1. On such a batch their term is ours times a constant, so theirs is our loss at another weight.
QUIRK = "vicreg_quirk_partial_batch"
TERMS = {"repr": "invariance", "std": "variance", "cov": "covariance"}


@pytest.mark.parametrize("name", [*LOSSES, QUIRK])
def test_loss(name: str, precision: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    divisor = ((p["n"] - 1) / (p["batch_size_arg"] - 1)) ** 2
    x, y = (torch.tensor(file[key], dtype=getattr(torch, precision), requires_grad=True) for key in ("in_x", "in_y"))
    terms = vicreg(
        x,
        y,
        invariance=p["sim_coeff"],
        variance=p["std_coeff"],
        covariance=p["cov_coeff"] * divisor,
        gamma=p["gamma"],
        eps=p["eps"],
    )

    def check(key: str, ours: torch.Tensor) -> None:
        error_table.check(name, key, ours, file[key], precision=precision)

    def check_gradients(prefix: str, of: torch.Tensor) -> None:
        for view, gradient in zip("xy", torch.autograd.grad(of, (x, y), retain_graph=True), strict=True):
            check(f"{prefix}_{view}", gradient)

    check("out_loss", terms["loss"])
    check_gradients("grad", terms["loss"])
    for theirs, ours in TERMS.items():
        term = terms[ours] * (divisor if ours == "covariance" else 1.0)
        check(f"out_{theirs}_loss", term)
        check_gradients(f"out_grad_{theirs}", term)


def worker(rank: int, file: dict[str, Any], precision: str) -> dict[str, np.ndarray]:
    p = file["params"]
    rows = slice(rank * p["n"], (rank + 1) * p["n"])
    x, y, weight = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_x", "in_y", "in_W"))
    weight.requires_grad_()
    weights = {"invariance": p["sim_coeff"], "variance": p["std_coeff"], "covariance": p["cov_coeff"]}
    loss = vicreg(x[rows] @ weight.T, y[rows] @ weight.T, **weights)["loss"]
    loss.backward()
    return {"loss": loss.detach().numpy(), "gradient": weight.grad.numpy()}


def test_processes_equal_one(precision: str, fixture_file, error_table, processes) -> None:
    name = "ddp2_vicreg"
    file = fixture_file(name)
    results = processes(file["params"]["world"]).run(worker, file, precision)
    losses = np.stack([result["loss"] for result in results])
    averaged = np.stack([result["gradient"] for result in results]).mean(0)
    for key, ours in (
        ("out_loss_per_rank", losses),  # the invariance term is each process's own
        ("out_loss_single", losses.mean()),
        ("grad_W", averaged),
        ("out_grad_W_single", averaged),
    ):
        error_table.check(name, key, ours, file[key], precision=precision)
