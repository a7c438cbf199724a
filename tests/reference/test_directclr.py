"""DirectCLR: both losses through the method, lightly's variant, and two processes."""

from typing import Any

import numpy as np
import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, DataFacts, get
from tests.reference.state import load, tensor


def test_loss_and_classifier(precision, fixture_file, error_table) -> None:
    name = "directclr_loss"
    file = fixture_file(name)
    p = file["params"]
    backbone = nn.Identity()
    backbone.num_features = p["d"]
    method = get("directclr")(
        backbone,
        dimensions=p["dim"],
        temperature=p["temperature"],
        online_classifier=True,
        facts=DataFacts(classes=p["classes"]),
    ).to(getattr(torch, precision))
    load(method, file, {"classifier.weight": "in_head_w", "classifier.bias": "in_head_b"}, precision)
    views = [tensor(file, f"in_r{view}", precision).requires_grad_() for view in (1, 2)]
    labels = tensor(file, "in_labels")
    step = method(Batch(views, torch.arange(p["n"]), labels))
    step.loss.backward()
    predicted = method.classifier(step.representations[0]).argmax(1)
    terms = step.terms
    found = {
        "out_loss": step.loss,
        "out_infonce_12": terms["info_nce_12"],
        "out_infonce_21": terms["info_nce_21"],
        "out_contrastive": (terms["info_nce_12"] + terms["info_nce_21"]) / 2,
        "out_cls": terms["classification"],
        "out_acc": (predicted == labels).double().mean(),
        "grad_r1": views[0].grad,
        "grad_r2": views[1].grad,
        "grad_head_w": method.classifier.weight.grad,
        "grad_head_b": method.classifier.bias.grad,
    }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def test_lightlys_variant(precision, fixture_file, error_table) -> None:
    """NT-Xent in place of the two cross-entropies."""
    name = "directclr_lightly_variant"
    file = fixture_file(name)
    p = file["params"]
    r = [tensor(file, f"in_r{view}", precision).requires_grad_() for view in (1, 2)]
    parts = [rows[:, : p["dim"]] for rows in r]
    loss = losses.nt_xent(*parts, temperature=p["temperature"], reduction="paper")["loss"]
    loss.backward()
    for key, value in (("out_loss", loss), ("grad_r1", r[0].grad), ("grad_r2", r[1].grad)):
        error_table.check(name, key, value, file[key], precision=precision)


def worker(rank: int, file: dict[str, Any], precision: str) -> dict[str, np.ndarray]:
    p = file["params"]
    rows = slice(rank * p["n"], (rank + 1) * p["n"])
    x, y, weight = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_x", "in_y", "in_W"))
    weight.requires_grad_()
    loss = losses.directclr(x[rows] @ weight.T, y[rows] @ weight.T, temperature=p["T"])["loss"]
    loss.backward()
    return {"loss": loss.detach().numpy(), "gradient": weight.grad.numpy()}


def test_processes_equal_one(precision, fixture_file, error_table, processes) -> None:
    name = "ddp2_directclr"
    file = fixture_file(name)
    world = file["params"]["world"]
    results = processes(world).run(worker, file, precision)
    # The authors compute the whole loss on every process, we the part of its own anchors: its mean is the same.
    mean = np.stack([result["loss"] for result in results]).mean()
    averaged = np.stack([result["gradient"] for result in results]).mean(0)
    single = file["out_grad_W_single"]
    found = {
        "out_loss_per_rank": np.full(world, mean),
        "out_loss_single": mean,
        "grad_W": averaged,
        "out_grad_W_single": averaged,
        "out_ratio": (averaged * single).sum() / (single * single).sum(),
    }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)
