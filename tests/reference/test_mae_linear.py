"""MAE's linear probe: batch norm without scale on frozen features, one layer, LARS by step."""

import torch
from torch import nn

from fullrank.methods import Optimization
from fullrank.schedules import Progress, Schedule
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.reference.state import tensor


def test_linear_probe(precision: str, fixture_file, error_table) -> None:
    name = "eval_mae_linprobe"
    file = fixture_file(name)
    p, features, labels = file["params"], tensor(file, "in_x", precision), tensor(file, "in_y")
    norm = nn.BatchNorm1d(p["D"], affine=False, eps=p["bn_eps"], momentum=p["bn_momentum"])
    layer = nn.Linear(p["D"], p["K"])
    probe = nn.Sequential(norm, layer).to(getattr(torch, precision))
    layer.load_state_dict({part: tensor(file, f"in_{part}", precision) for part in ("weight", "bias")})
    published = Optimization(
        "lars", p["lr"], p["wd"], 256, p["epochs"], Schedule(p["warmup"], end_factor=p["min_lr"] / p["lr"]),
        options={"momentum": p["momentum"], "eta": p["trust_coefficient"]},
    )  # fmt: skip
    optimizer = build_optimizer(probe, published)
    found: dict[str, list] = {"out_epoch_loss": [], "out_last_lr": []}
    for epoch in range(p["epochs"]):
        losses = []
        for step in range(p["S"]):
            set_rates(optimizer, published, Progress(epoch * p["S"] + step, p["epochs"] * p["S"], p["S"]))
            losses.append(nn.functional.cross_entropy(probe(features[step]), labels[step]))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        found["out_epoch_loss"].append(torch.stack(losses).mean().item())
        found["out_last_lr"].append(optimizer.param_groups[0]["lr"])
    ours = found | {f"out_{key}": value for key, value in layer.state_dict().items()}
    ours |= {f"out_{key}": value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    ours["out_eval_loss"] = nn.functional.cross_entropy(probe.eval()(features[0]), labels[0])
    assert ours.keys() == {key for key in file if key.startswith("out_")}
    for key, value in ours.items():
        error_table.check(name, key, value, file[key], precision=precision)
