"""DINO: the loss with its centre, the head, and whole training steps through the method."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.methods import Batch, Optimization, get
from fullrank.schedules import Progress, Schedule, cosine
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.reference.state import load, tensor


def view_major(rows: Tensor, batch: int) -> Tensor:
    """(v n, k) -> (v, n, k)."""
    return rows.unflatten(0, (-1, batch))


def identity(width: int) -> nn.Module:
    backbone = nn.Identity()
    backbone.num_features = width
    return backbone


def test_loss_and_center(precision, fixture_file, error_table) -> None:
    name = "dino_loss"
    file = fixture_file(name)
    p = file["params"]
    method = get("dino")(
        identity(1),
        projector="1",
        prototypes=p["out_dim"],
        teacher_temperature=p["teacher_temp"],
        warmup_teacher_temperature=p["warmup_teacher_temp"],
        warmup_teacher_epochs=p["warmup_teacher_temp_epochs"],
    )
    temperatures = [method.teacher_temperature(epoch) for epoch in range(p["nepochs"])]
    error_table.check(name, "out_teacher_temp", temperatures, file["out_teacher_temp"])
    center = tensor(file, "in_center0", precision)[0]
    for call, epoch in enumerate(file["in_epoch"]):
        student = tensor(file, "in_student", precision)[call].requires_grad_()
        teacher = view_major(tensor(file, "in_teacher", precision)[call], p["batch"])
        given = {"teacher_temperature": temperatures[epoch], "student_temperature": p["student_temp"]}
        terms = losses.dino(student, teacher=teacher, center=center, **given)
        terms["loss"].backward()
        torch.testing.assert_close(terms["entropy"] + terms["divergence"], terms["loss"])
        center = losses.dino_center(center, teacher, momentum=p["center_momentum"])
        found = {"out_loss": terms["loss"], "out_center": center[None], "grad_student": student.grad}
        assert found.keys() | {"out_teacher_temp"} == {key for key in file if key.startswith(("out_", "grad_"))}
        for key, value in found.items():
            error_table.check(name, key, value, file[key][call], precision=precision)


def loss_of_process(rank: int, file: dict, precision: str, temperature: float) -> dict[str, np.ndarray]:
    p = file["params"]
    student = tensor(file, "in_student", precision)[rank].requires_grad_()
    teacher = view_major(tensor(file, "in_teacher", precision)[rank], len(student) // p["ncrops"])
    center = tensor(file, "in_center", precision)[0]
    given = {"teacher_temperature": temperature, "student_temperature": p["student_temp"]}
    loss = losses.dino(student, teacher=teacher, center=center, **given)["loss"]
    loss.backward()
    center = losses.dino_center(center, teacher, momentum=p["center_momentum"])
    found = {"out_loss": loss, "out_center": center[None], "grad_student": student.grad}
    return {key: value.detach().numpy() for key, value in found.items()}


def test_processes_share_the_center(precision, fixture_file, error_table, processes) -> None:
    name = "dino_loss_dist"
    file = fixture_file(name)
    p = file["params"]
    line = np.linspace(p["warmup_teacher_temp"], p["teacher_temp"], p["warmup_teacher_temp_epochs"])
    temperature = float(line[p["epoch"]]) if p["epoch"] < len(line) else p["teacher_temp"]
    results = processes(len(file["in_student"])).run(loss_of_process, file, precision, temperature)
    assert results[0].keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key in results[0]:
        ours = np.stack([result[key] for result in results])
        error_table.check(name, key, ours, file[key], precision=precision)


def widths(layers: int, hidden: int, bottleneck: int) -> str:
    """Of the authors' head, as an option of ours."""
    return "-".join(map(str, [hidden] * (layers - 1) + [bottleneck]))


def own_head(key: str) -> str:
    """Our name of a parameter of the authors' head; a head of one layer is no sequence there."""
    numbered = key if key.split(".")[1].isdigit() else key.replace("mlp.", "mlp.0.")
    return numbered.replace("mlp.", "network.projector.").replace("last_layer.", "prototypes.")


@pytest.mark.parametrize("name", ["dino_head_0", "dino_head_1"])
def test_head(name, precision, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    method = get("dino")(
        identity(p["in_dim"]),
        projector=widths(p["nlayers"], p["hidden_dim"], p["bottleneck_dim"]),
        batch_norm=p["use_bn"],
        prototypes=p["out_dim"],
        norm_last_layer=p["norm_last_layer"],
    ).to(getattr(torch, precision))
    keys = [key.removeprefix("in_") for key in file if key.startswith(("in_mlp.", "in_last_layer."))]
    own = {own_head(key): f"in_{key}" for key in keys}
    copied = {f"teacher.copy.{name.removeprefix('network.')}": key for name, key in own.items() if "network." in name}
    copied |= {f"teacher_prototypes.copy.{name[11:]}": key for name, key in own.items() if "prototypes." in name}
    load(method, file, own | copied, precision)
    x = tensor(file, "in_x", precision).requires_grad_()
    y = method.prototypes(method.network.projector(x))
    y.backward(tensor(file, "in_upstream", precision))
    found = {"out_y": y, "grad_x": x.grad}
    trained = {name: value.grad for name, value in method.named_parameters() if value.requires_grad}
    found |= {f"grad_{key}": trained[own_head(key)] for key in keys if own_head(key) in trained}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


class StandIn(nn.Module):
    """The backbone of the authors' training loop in the fixture: a spatial mean and one layer."""

    def __init__(self, pixels: int, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.lin = nn.Linear(pixels, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(nn.functional.gelu(self.lin(images.mean((2, 3)))))


def own_name(key: str) -> str:
    """Our name of one of the student's parameters."""
    return f"network.{key}" if key.startswith("backbone.") else own_head(key.removeprefix("head."))


def teacher_name(own: str) -> str:
    return own.replace("network.", "teacher.copy.").replace("prototypes.", "teacher_prototypes.copy.")


def build(file: dict, precision: str) -> nn.Module:
    p = file["params"]
    method = get("dino")(
        StandIn(p["D"], p["E"]),
        projector=widths(p["nlayers"], p["hid"], p["bot"]),
        prototypes=p["K"],
        norm_last_layer=p["norm_last"],
        temperature=p["student_temp"],
        teacher_temperature=p["tt"],
        warmup_teacher_temperature=p["wt"],
        warmup_teacher_epochs=p["we"],
        center_momentum=p["center_momentum"],
        momentum=p["m"],
        freeze_epochs=float(p["freeze"]),
        clip=p["clip"],
    ).to(getattr(torch, precision))
    keys = [key for key in file if key.startswith(("in_backbone.", "in_head."))]
    own = {own_name(key.removeprefix("in_")): key for key in keys}
    return load(method, file, own | {teacher_name(name): key for name, key in own.items()}, precision)


def optimization(p: dict) -> Optimization:
    schedule = Schedule(p["warmup_epochs"], end_factor=p["min_lr"] / p["lr"], reaches_peak=True)
    return Optimization(p["opt"], p["lr"], p["wd"], 256, p["epochs"], schedule, weight_decay_end=p["wd_end"])


def decayed(method: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Our names of the parameters with weight decay."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    return {names[each] for group in optimizer.param_groups if group["decays"] for each in group["params"]}


def test_training_steps(precision, fixture_file, error_table) -> None:
    name = "dino_train"
    file = fixture_file(name)
    p = file["params"]
    method = build(file, precision)
    rates = optimization(p)
    optimizer = build_optimizer(method, rates)
    assert decayed(method, optimizer) == {own_name(key) for key in p["regularized"]}
    student = [key.removeprefix("in_") for key in file if key.startswith(("in_backbone.", "in_head."))]
    trained = [key for key in student if f"grad_{key}" in file]
    steps, parameters = p["epochs"] * p["S"], dict(method.named_parameters())
    found: dict[str, list] = defaultdict(list)
    for number in range(steps):
        progress = Progress(number, steps, p["S"])
        crops = [tensor(file, f"in_crop{v}", precision)[number] for v in range(2 + p["nloc"])]
        loss = method(Batch(crops, torch.arange(p["B"]), progress=progress)).loss
        method.zero_grad()
        loss.backward()
        gradients = [parameters[own_name(key)].grad.clone() for key in trained]
        for key, gradient in zip(trained, gradients, strict=True):
            found[f"grad_{key}"].append(gradient)
        found["out_grad_norms"].append(torch.stack([gradient.norm() for gradient in gradients]))
        method.before_step(progress)
        set_rates(optimizer, rates, progress)
        optimizer.step()
        method.after_step(progress)
        group = next(group for group in optimizer.param_groups if group["decays"])
        numbers = {"loss": loss, "lr": group["lr"], "wd": group["weight_decay"]}
        numbers |= {"m": cosine(progress.share, p["m"], 1.0), "center": method.center.clone()[None]}
        for key, value in numbers.items():
            found[f"out_{key}"].append(torch.as_tensor(value, dtype=torch.float64).detach())
        if number % p["S"] == p["S"] - 1:
            state = {key: value.clone() for key, value in method.state_dict().items()}
            for key in student:
                found[f"out_student_ep{progress.epoch}_{key}"] = state[own_name(key)]
                found[f"out_teacher_ep{progress.epoch}_{key}"] = state[teacher_name(own_name(key))]
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        ours = torch.stack(value) if isinstance(value, list) else value
        error_table.check(name, key, ours, file[key], precision=precision)
