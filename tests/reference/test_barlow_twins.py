"""Barlow Twins' loss: total, both sums and their gradients; and two processes.

The authors normalise with a batch-norm layer that keeps running averages (out_bn_running_mean and _var) which
nothing reads; our loss has no state, so there is nothing to compare them with.
"""

from typing import Any

import numpy as np
import pytest
import torch

from fullrank.losses import barlow_twins

LOSSES = ["barlow_loss_n_gt_d", "barlow_loss_n_lt_d", "barlow_loss_scale_loss"]


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str, precision: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    x, y = (torch.tensor(file[key], dtype=getattr(torch, precision), requires_grad=True) for key in ("in_z1", "in_z2"))
    terms = barlow_twins(x, y, redundancy=p["lambd"], eps=p["bn_eps"], scale=p["scale_loss"])
    gradients = torch.autograd.grad(terms["loss"], (x, y))
    for key, ours in {
        "out_loss": terms["loss"],
        "out_on_diag": terms["invariance"],
        "out_off_diag": terms["redundancy"],
        "grad_z1": gradients[0],
        "grad_z2": gradients[1],
    }.items():
        error_table.check(name, key, ours, file[key], precision=precision)


def worker(rank: int, file: dict[str, Any], precision: str) -> dict[str, np.ndarray]:
    p = file["params"]
    rows = slice(rank * p["n"], (rank + 1) * p["n"])
    x, y, weight = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_x", "in_y", "in_W"))
    weight.requires_grad_()
    loss = barlow_twins(x[rows] @ weight.T, y[rows] @ weight.T, redundancy=p["lambd"])["loss"]
    loss.backward()
    return {"loss": loss.detach().numpy(), "gradient": weight.grad.numpy()}


def test_processes_equal_one(precision: str, fixture_file, error_table, processes) -> None:
    """Ours is the gradient of one process with all the rows; the authors' is that over the number of processes.

    They sum the cross-correlation over processes by a collective that autograd does not see, so a process gets the
    gradient of its own rows alone, and averaging over processes then divides by their number once too often.
    """
    name = "ddp2_barlow"
    file = fixture_file(name)
    world = file["params"]["world"]
    results = processes(world).run(worker, file, precision)
    averaged = np.stack([result["gradient"] for result in results]).mean(0)
    for key, ours in {
        "out_loss_per_rank": np.stack([result["loss"] for result in results]),
        "out_loss_single": results[0]["loss"],
        "out_grad_W_single": averaged,
        "grad_W": averaged / world,
    }.items():
        error_table.check(name, key, ours, file[key], precision=precision)
