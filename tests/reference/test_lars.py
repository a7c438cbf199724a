"""LARS: parameters and momentum after every step."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import nn

from fullrank.training.lars import LARS


@pytest.fixture
def check_steps(error_table, precision: str) -> Callable[[str, dict, Iterable[dict[str, torch.Tensor]]], None]:
    """Compares the arrays of all steps, by key, with those of the file."""

    def check(name: str, file: dict, steps: Iterable[dict[str, torch.Tensor]]) -> None:
        ours = defaultdict(list)
        for step in steps:
            for key, value in step.items():
                ours[key].append(value.detach().numpy().copy())
        assert ours.keys() == {key for key in file if key.startswith("out_")}
        for key, values in ours.items():
            error_table.check(name, key, np.stack(values), file[key], precision=precision)

    return check


def parameters(file: dict, names: list[str], precision: str, prefix: str = "in_p0_") -> dict[str, nn.Parameter]:
    dtype = getattr(torch, precision)
    return {name: nn.Parameter(torch.tensor(file[f"{prefix}{name}"], dtype=dtype)) for name in names}


@pytest.mark.parametrize("name", ["lars_vicreg_filtered", "lars_vicreg_nofilter"])
def test_vicreg(name: str, precision: str, fixture_file, check_steps) -> None:
    file = fixture_file(name)
    p = file["params"]
    held = parameters(file, p["param_order"], precision)
    optimizer = LARS(
        held.values(),
        lr=1.0,
        momentum=p["momentum"],
        weight_decay=p["wd"],
        eta=p["eta"],
        decay_1d=p["weight_decay_filter"] is None,
        adapt_1d=p["lars_adaptation_filter"] is None,
    )

    def step_by(step: int, lr: float) -> dict[str, torch.Tensor]:
        optimizer.param_groups[0]["lr"] = lr
        for key, parameter in held.items():
            skipped = step in p["skip_grad_none"].get(key, [])
            parameter.grad = None if skipped else torch.tensor(file[f"in_g_{key}"][step], dtype=parameter.dtype)
        optimizer.step()
        buffers = {
            f"out_mu_{key}": optimizer.state[parameter].get("momentum_buffer", torch.zeros_like(parameter))
            for key, parameter in held.items()
        }
        return buffers | {f"out_p_{key}": parameter for key, parameter in held.items()}

    check_steps(name, file, (step_by(step, lr) for step, lr in enumerate(p["lrs"])))


def test_barlow_two_groups(precision: str, fixture_file, check_steps) -> None:
    name = "lars_barlow_two_groups"
    file = fixture_file(name)
    p = file["params"]
    held = parameters(file, [key for group in p["groups"] for key in group], precision)
    groups = [{"params": [held[key] for key in group]} for group in p["groups"]]
    optimizer = LARS(groups, lr=1.0, momentum=p["momentum"], weight_decay=p["wd"], eta=p["eta"])

    def step_by(step: int, lrs: np.ndarray) -> dict[str, torch.Tensor]:
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = float(lr)
        for key, parameter in held.items():
            parameter.grad = torch.tensor(file[f"in_g_{key}"][step], dtype=parameter.dtype)
        optimizer.step()
        return {f"out_p_{key}": parameter for key, parameter in held.items()}

    check_steps(name, file, (step_by(step, lrs) for step, lrs in enumerate(file["in_lr"])))


def test_mae(precision: str, fixture_file, check_steps) -> None:
    """MAE's linear probe has its own copy of LARS; on parameters with a dimension it is the same."""
    name = "eval_lars"
    file = fixture_file(name)
    p = file["params"]
    names = [key.removeprefix("in_grad_") for key in file if key.startswith("in_grad_")]
    held = parameters(file, names, precision, prefix="in_")
    options = {"momentum": p["momentum"], "weight_decay": p["wd"], "eta": p["trust_coefficient"]}
    optimizer = LARS(held.values(), lr=p["lr"], **options)

    def step_by(step: int) -> dict[str, torch.Tensor]:
        for key, parameter in held.items():
            parameter.grad = torch.tensor(file[f"in_grad_{key}"][step], dtype=parameter.dtype)
        optimizer.step()
        return {f"out_{key}": parameter for key, parameter in held.items()}

    check_steps(name, file, map(step_by, range(p["S"])))


def test_simclr(precision: str, fixture_file, check_steps) -> None:
    """The learning rate is inside the momentum. Their exclusions go by name, ours by rank: theirs are vectors here."""
    name = "lars_simclr"
    file = fixture_file(name)
    p = file["params"]
    assert p["classic_momentum"]
    names = [key.removeprefix("in_p0_") for key in file if key.startswith("in_p0_")]
    shapes = {key: file[f"in_p0_{key}"].shape for key in names}
    excluded = {key for key in names if any(part in key for part in p["exclude"])}
    assert {key for key in names if len(shapes[key]) == 1} <= excluded
    held = {
        key: nn.Parameter(value.detach().flatten()) if key in excluded else value
        for key, value in parameters(file, names, precision).items()
    }
    options = {"momentum": p["momentum"], "weight_decay": p["wd"], "eta": p["eta"]}
    optimizer = LARS(held.values(), lr=1.0, lr_in_momentum=True, **options)

    def step_by(step: int, lr: float) -> dict[str, torch.Tensor]:
        optimizer.param_groups[0]["lr"] = lr
        for key, parameter in held.items():
            parameter.grad = torch.tensor(file[f"in_g_{key}"][step], dtype=parameter.dtype).view_as(parameter)
        optimizer.step()
        buffers = {
            f"out_v_{key}": optimizer.state[parameter]["momentum_buffer"].view(shapes[key])
            for key, parameter in held.items()
        }
        return buffers | {f"out_p_{key}": parameter.view(shapes[key]) for key, parameter in held.items()}

    check_steps(name, file, (step_by(step, lr) for step, lr in enumerate(p["lrs"])))


def test_larc(precision: str, fixture_file, check_steps) -> None:
    """SwAV's optimiser: the paper's ratio, vectors too; frozen prototypes have no gradient in the first step."""
    name = "swav_larc"
    file = fixture_file(name)
    p = file["params"]
    assert not p["clip"]
    names = [key.removeprefix("in_grad_") for key in file if key.startswith("in_grad_")]
    held = parameters(file, names, precision, prefix="in_")
    options = {"momentum": p["momentum"], "weight_decay": p["wd"], "eta": p["trust_coefficient"]}
    optimizer = LARS(held.values(), lr=1.0, sum_of_norms=True, decay_1d=True, adapt_1d=True, **options)

    def step_by(step: int, lr: float) -> dict[str, torch.Tensor]:
        optimizer.param_groups[0]["lr"] = lr
        for key, parameter in held.items():
            frozen = key == "P" and step == 0
            parameter.grad = None if frozen else torch.tensor(file[f"in_grad_{key}"][step], dtype=parameter.dtype)
        optimizer.step()
        return {f"out_{key}": parameter for key, parameter in held.items()}

    check_steps(name, file, (step_by(step, lr) for step, lr in enumerate(p["lr"])))
