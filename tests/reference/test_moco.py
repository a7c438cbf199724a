"""MoCo v1 and v2: the loss with its queue, the momentum encoder, and whole training steps through the method."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fullrank.losses import contrastive
from fullrank.methods import Batch, get
from fullrank.methods.moco import MoCo
from fullrank.networks import Momentum
from fullrank.schedules import Progress, Schedule
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.reference.state import load, tensor

METHODS = {False: "moco", True: "mocov2"}  # by the authors' flag `mlp`


@pytest.fixture
def logits(monkeypatch) -> list[torch.Tensor]:
    """What the loss compares, call by call."""
    seen, original = [], contrastive.info_nce_logits

    def recorded(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(contrastive, "info_nce_logits", recorded)
    return seen


def build(name: str, width: int, precision: str, **options) -> MoCo:
    """The method around an identity."""
    backbone = nn.Identity()
    backbone.num_features = width
    backbone.unused = nn.Parameter(torch.zeros(1))  # a momentum encoder follows at least one
    return get(name)(backbone, **options).to(getattr(torch, precision))


def set_queue(method: MoCo, file: dict, precision: str, pointer: int) -> None:
    """The authors keep a key in each column."""
    method.queue.rows.copy_(tensor(file, "in_queue", precision).T)
    method.queue.pointer.fill_(pointer)


@pytest.mark.parametrize("name", ["moco_v1_loss", "moco_v2_loss"])
def test_loss(name, precision, fixture_file, error_table, logits) -> None:
    file = fixture_file(name)
    p = file["params"]
    options = {"temperature": p["temperature"], "queue": p["K"]}
    method = build("moco", p["dim"], precision, projector="none", **options)
    set_queue(method, file, precision, int(file["in_queue_ptr"]))
    views = [tensor(file, f"in_{key}", precision).requires_grad_() for key in "qk"]
    loss = method(Batch(views, torch.arange(p["n"]))).loss
    loss.backward()
    found = {
        "out_loss": loss,
        "out_logits": logits[0][0],
        "out_labels": logits[0][1],
        "out_queue_after": method.queue.rows.T,
        "out_queue_ptr_after": method.queue.pointer,
        "grad_q": views[0].grad,
        "grad_k": torch.zeros_like(views[1]) if views[1].grad is None else views[1].grad,
    }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def test_momentum_encoder(precision, fixture_file, error_table) -> None:
    name = "moco_ema"
    file = fixture_file(name)
    keys = [key.removeprefix("in_key0_") for key in file if key.startswith("in_key0_")]
    online = nn.ParameterDict({key: tensor(file, f"in_key0_{key}", precision) for key in keys})
    target = Momentum(online)
    for step in range(file["params"]["steps"]):
        for key in keys:
            online[key].data = tensor(file, f"in_online_{key}", precision)[step]
        target.follow(online, file["params"]["m"])
        for key in keys:
            theirs = file[f"out_key_{key}"][step]
            error_table.check(name, f"out_key_{key}", target.copy[key], theirs, precision=precision)


def training(file: dict, precision: str) -> tuple[MoCo, list[str]]:
    """The method with the weights of the file, and the authors' names of its head."""
    p = file["params"]
    names = [key.removeprefix("in_param_") for key in file if key.startswith("in_param_")]
    hidden = [len(file[f"in_param_{key}"]) for key in sorted(names) if key.endswith("weight")]
    method = build(
        METHODS[p["mlp"]],
        p["f"],
        precision,
        projector="-".join(map(str, hidden)),
        temperature=p["T"],
        queue=p["K"],
        momentum=p["m"],
    )
    for head in (method.network.projector, method.target.copy.projector):
        load(head, file, {own_name(key): f"in_param_{key}" for key in names}, precision)
    set_queue(method, file, precision, p["queue_ptr0"])
    return method, names


def own_name(key: str) -> str:
    """Ours of `fc.weight` or, of the perceptron, `fc.2.weight`."""
    rest = key.removeprefix("fc.")
    return rest if "." in rest else f"0.{rest}"


def schedule(p: dict) -> Schedule:
    published = get(METHODS[p["cos"]]).published.schedule
    milestones = tuple(epoch / p["epochs"] for epoch in p["schedule"])
    return published if p["cos"] else replace(published, milestones=milestones)


@pytest.mark.parametrize("name", ["moco_train_steps_v1", "moco_train_steps_v2"])
def test_training_steps(name, precision, fixture_file, error_table, logits) -> None:
    file = fixture_file(name)
    p = file["params"]
    method, names = training(file, precision)
    numbers = {"learning_rate": p["lr"], "weight_decay": p["wd"], "batch_size": 256, "options": {"momentum": p["mom"]}}
    optimization = replace(method.published, schedule=schedule(p), **numbers)
    optimizer = build_optimizer(method, optimization)
    views = [tensor(file, f"in_x{key}", precision) for key in "qk"]
    for number in range(p["steps"]):
        progress = Progress(number, p["epochs"] * p["ipe"], p["ipe"])
        loss = method(Batch([view[number] for view in views], torch.arange(p["n"]), progress=progress)).loss
        optimizer.zero_grad()
        loss.backward()
        method.before_step(progress)
        set_rates(optimizer, optimization, progress)
        optimizer.step()
        method.after_step(progress)
        state = method.state_dict()
        found = {
            "out_loss": loss,
            "out_logits": logits[-1][0],
            "out_queue": method.queue.rows.T,
            "out_ptr": method.queue.pointer,
            "out_lr": optimizer.param_groups[0]["lr"],
            **{f"out_q_{key}": state[f"network.projector.{own_name(key)}"] for key in names},
            **{f"out_k_{key}": state[f"target.copy.projector.{own_name(key)}"] for key in names},
        }
        assert found.keys() == {key for key in file if key.startswith("out_")}
        for key, value in found.items():
            error_table.check(name, key, value, file[key][number], precision=precision)
