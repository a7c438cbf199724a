"""NNCLR: neighbours, loss, gradients and queue over several steps; and lightly's variant of it."""

import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, get
from fullrank.methods.nnclr import NNCLR
from fullrank.networks import Queue, Sides, unit
from tests.reference.state import tensor


class Given(nn.Module):
    """A siamese network whose embeddings and predictions are the views themselves."""

    def forward(self, views: list[torch.Tensor]) -> Sides:
        embeddings, predictions = views[:2], views[2:]
        return Sides(embeddings, embeddings, predictions, embeddings)


def build(file: dict, precision: str) -> NNCLR:
    p = file["params"]
    backbone = nn.Identity()
    backbone.num_features = p["d"]
    switches = type(get("nnclr").switches)()
    method = get("nnclr")(backbone, projector="none", temperature=p["T"], queue=p["K"], switches=switches)
    method.network = Given()
    method.to(getattr(torch, precision))
    method.queue.rows.copy_(tensor(file, "in_queue", precision))
    method.queue.pointer.fill_(int(file["in_ptr"]))
    return method


def rows_of(file: dict, step: int, precision: str) -> list[torch.Tensor]:
    return [tensor(file, f"in_{key}", precision)[step].requires_grad_() for key in ("z1", "z2", "p1", "p2")]


def zero_or(gradient: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(rows) if gradient is None else gradient


def test_steps(precision, fixture_file, error_table) -> None:
    name = "nnclr_steps"
    file = fixture_file(name)
    method = build(file, precision)
    for step in range(file["params"]["steps"]):
        z1, z2, p1, p2 = views = rows_of(file, step, precision)
        places = [method.queue.nearest(z) for z in (z1, z2)]
        neighbours = [method.queue.rows[place] for place in places]
        made = method(Batch(views, torch.arange(len(z1))))
        made.loss.backward()
        found = {
            "out_loss": made.loss,
            "out_loss_nn1_p2": made.terms["info_nce_12"],
            "out_loss_nn2_p1": made.terms["info_nce_21"],
            "out_queue": method.queue.rows,
            "out_ptr": method.queue.pointer,
        }
        for view, rows in ((1, (z1, p1)), (2, (z2, p2))):
            found |= {f"out_idx{view}": places[view - 1], f"out_nn{view}": neighbours[view - 1]}
            found |= {f"grad_{kind}{view}": zero_or(each.grad, each) for kind, each in zip("zp", rows, strict=True)}
        assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
        for key, value in found.items():
            error_table.check(name, key, value, file[key][step], precision=precision)


def test_lightlys_variant(precision, fixture_file, error_table) -> None:
    """NT-Xent between neighbours and predictions; view 2 is stored as it is, and what crosses the end is dropped."""
    name = "nnclr_lightly_variant"
    file = fixture_file(name)
    p = file["params"]
    stored, directions = (Queue(p["K"], p["d"]).to(getattr(torch, precision)) for _ in range(2))
    stored.rows.copy_(tensor(file, "in_queue", precision))
    for step in range(p["steps"]):
        z1, z2, p1, p2 = rows_of(file, step, precision)
        directions.rows.copy_(unit(stored.rows))
        n1, n2 = (stored.rows[directions.nearest(z)] for z in (z1, z2))
        losses_of = [losses.nt_xent(n, q, temperature=p["T"], reduction="paper") for n, q in ((n1, p2), (n2, p1))]
        loss = (losses_of[0]["loss"] + losses_of[1]["loss"]) / 2
        loss.backward()
        stored.push(z2[: p["K"] - int(stored.pointer)])
        found = {"out_loss": loss, "out_nn1": n1, "out_nn2": n2, "grad_p1": p1.grad, "grad_p2": p2.grad}
        found |= {"out_queue": stored.rows, "out_ptr": stored.pointer}
        assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
        for key, value in found.items():
            error_table.check(name, key, value, file[key][step], precision=precision)
