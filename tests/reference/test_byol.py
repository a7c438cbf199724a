"""BYOL: the loss, the momentum encoder, and whole training steps through the method."""

import numpy as np
import pytest
import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, DataFacts, Optimization, get
from fullrank.networks import Momentum, Switches
from fullrank.schedules import Progress, Schedule, cosine
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.reference.state import tensor

# Haiku's names of a two-layer perceptron and ours; Haiku keeps weights as (in, out) and norms as (1, width).
LAYERS = {
    "linear.w": "0.weight",
    "linear.b": "0.bias",
    "batch_norm.scale": "1.weight",
    "batch_norm.offset": "1.bias",
    "linear_1.w": "3.weight",
}
PARTS = {
    "flatenc.linear": "network.branch.backbone.1",
    "projector": "network.branch.projector",
    "predictor": "network.predictor",
    "classifier": "classifier",
}


def test_loss(precision, fixture_file, error_table) -> None:
    file = fixture_file("byol_loss")
    given = {key: tensor(file, f"in_{key}", precision) for key in ("pred1", "pred2", "target1", "target2")}
    for rows in given.values():
        rows.requires_grad_()
    predictions, targets = [given["pred1"], given["pred2"]], [given["target1"], given["target2"]]
    loss = losses.byol(*predictions, *(target.detach() for target in targets))["loss"]
    loss.backward()
    error_table.check("byol_loss", "out_loss", loss, file["out_loss"], precision=precision)
    for key, rows in given.items():
        gradient = torch.zeros_like(rows) if rows.grad is None else rows.grad
        error_table.check("byol_loss", f"grad_{key}", gradient, file[f"grad_{key}"], precision=precision)
    # One direction alone is half of the loss of a pair with itself.
    for key, pair in (("out_loss_12", (0, 1)), ("out_loss_21", (1, 0))):
        p, t = predictions[pair[0]], targets[pair[1]]
        one = losses.byol(p, p, t, t)["loss"] / 2
        error_table.check("byol_loss", key, one, file[key], precision=precision)


def test_momentum_encoder(fixture_file, error_table) -> None:
    file = fixture_file("byol_ema")
    p = file["params"]
    online = nn.Linear(1, 1, bias=False).double()
    online.weight = nn.Parameter(tensor(file, "in_target0"))
    target, taus = Momentum(online), []
    for step, weight in enumerate(tensor(file, "in_online")):
        online.weight.data = weight
        taus.append(cosine(step / p["max_steps"], p["base"], 1.0))
        target.follow(online, taus[-1])
        error_table.check("byol_ema", "out_target", target.copy.weight, file["out_target"][step])
    error_table.check("byol_ema", "out_tau", taus, file["out_tau"])


def own_name(key: str) -> str:
    """Our name of one of the official parameters."""
    part = next(part for part in PARTS if key.startswith(part))
    rest = key.removeprefix(part + ".")
    return f"{PARTS[part]}.{LAYERS.get(rest, {'w': 'weight', 'b': 'bias'}.get(rest))}"


def as_ours(own: str, value: np.ndarray) -> torch.Tensor:
    value = torch.as_tensor(value)
    if own.endswith("weight") and value.ndim == 2 and value.shape[0] > 1:
        return value.T.contiguous()
    return value.flatten()


def build(file: dict) -> nn.Module:
    p = file["params"]
    encoder = nn.Linear(3 * p["hw"] ** 2, p["enc"])
    backbone = nn.Sequential(nn.Flatten(), encoder)
    backbone.num_features = p["enc"]
    switches = Switches(momentum=p["base_ema"], stop_gradient=True, predictor=f"{p['pred']}-{p['out']}")
    method = get("byol")(
        backbone,
        projector=f"{p['hid']}-{p['out']}",
        online_classifier=True,
        switches=switches,
        facts=DataFacts(classes=p["C"]),
    ).double()
    state = method.state_dict()
    for key in [key.removeprefix("in_online_") for key in file if key.startswith("in_online_")]:
        own = own_name(key)
        state[own].copy_(as_ours(own, file[f"in_online_{key}"]))
        copied = own.replace("network.branch.", "network.target.copy.")
        if copied != own:
            state[copied].copy_(as_ours(own, file[f"in_target_{key}"]))
    return method


@pytest.fixture
def training(fixture_file):
    file = fixture_file("byol_train_steps")
    return file, build(file)


def views(file: dict, step: int) -> list[torch.Tensor]:
    """The official network takes pictures as (n, h, w, 3) and normalises them itself."""
    p = file["params"]
    mean, std = (torch.tensor(p[key], dtype=torch.float64) for key in ("image_mean", "image_std"))
    return [(tensor(file, f"in_view{v}")[step] - mean) / std for v in (1, 2)]


def test_training_steps(training, error_table) -> None:
    file, method = training
    p, name = file["params"], "byol_train_steps"
    schedule = Schedule(p["warm"], end_factor=0.0)
    options = {"eta": p["eta"], "momentum": p["mom"]}
    optimization = Optimization("lars", p["base_lr"], p["wd"], p["batch"], 1, schedule, options=options)
    optimizer = build_optimizer(method, optimization)
    official = [key.removeprefix("out_online_") for key in file if key.startswith("out_online_")]
    for step in range(p["steps"]):
        progress = Progress(step, p["max_steps"], 1)
        batch = Batch(views(file, step), torch.arange(p["n"]), tensor(file, "in_labels")[step], progress)
        loss = method(batch).loss
        error_table.check(name, "out_loss", loss, file["out_loss"][step])
        optimizer.zero_grad()
        loss.backward()
        set_rates(optimizer, optimization, progress)
        rate = next(group["lr"] for group in optimizer.param_groups)
        error_table.check(name, "out_learning_rate", rate, file["out_learning_rate"][step])
        optimizer.step()
        method.after_step(progress)
        state = method.state_dict()
        for key in official:
            own = own_name(key)
            theirs = as_ours(own, file[f"out_online_{key}"][step])
            error_table.check(name, f"out_online_{key}", state[own], theirs)
            # The official target also averages predictor and classifier, which nothing reads: ours has neither.
            copied = own.replace("network.branch.", "network.target.copy.")
            if copied != own:
                theirs = as_ours(own, file[f"out_target_{key}"][step])
                error_table.check(name, f"out_target_{key}", state[copied], theirs)
    parameters = dict(method.named_parameters())
    for key in official:
        own = own_name(key)
        momentum = optimizer.state[parameters[own]]["momentum_buffer"]
        error_table.check(name, f"out_mu_{key}", momentum, as_ours(own, file[f"out_mu_{key}"]))
    statistics = method.state_dict()
    start, biased = 0.9 ** (2 * p["steps"]), (p["n"] - 1) / p["n"]  # both views update the running statistics
    for part in ("projector", "predictor"):
        own = PARTS[part] + ".1.running_"
        # Haiku starts both averages from 0 and divides by what is left to 1; torch starts the variance from 1 and
        # stores the unbiased one.
        hidden = {"mean": statistics[own + "mean"], "var": (statistics[own + "var"] - start) * biased}
        for kind, ours in hidden.items():
            key = f"out_bnstate_{part}.batch_norm.{kind}_ema"
            error_table.check(name, key, ours, file[f"{key}.hidden"].ravel())
            error_table.check(name, key, ours / (1 - start), file[f"{key}.average"].ravel())
