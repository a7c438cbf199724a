"""Learning rates, weight decay and momentum of every step."""

import dataclasses

import numpy as np
import pytest

from fullrank.schedules import Progress, Schedule, constant, cosine, linear


def curve(schedule: Schedule, steps: int, steps_per_epoch: float, count: int | None = None) -> np.ndarray:
    """The factor of every step of a run."""
    return np.array([schedule(Progress(step, steps, steps_per_epoch)) for step in range(count or steps)])


@pytest.mark.parametrize("name", ["lr_vicreg", "lr_barlow", "lr_directclr"])
def test_warmup_and_cosine_by_step(name: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p, theirs = file["params"], file["out_lr"]
    rates = [p[key] for key in ("base_lr", "lr_weights", "lr_biases") if key in p]
    peaks = [rate * p["batch_size"] / 256 for rate in rates] or [p["lr"]]
    schedule = Schedule(p["warmup_epochs"], end_factor=p["end_factor"])
    factors = curve(schedule, p["epochs"] * p["steps_per_epoch"], p["steps_per_epoch"])
    error_table.check(name, "out_lr", np.outer(factors, peaks).reshape(theirs.shape), theirs)


def test_simclr(fixture_file, error_table) -> None:
    file = fixture_file("lr_simclr")
    p, theirs = file["params"], file["out_lr"]
    peak = p["lr"] * (p["batch"] / 256 if p["scaling"] == "linear" else p["batch"] ** 0.5)
    per_epoch = p["num"] / p["batch"]
    schedule = Schedule(p["warmup_steps"] / per_epoch, end_factor=0.0)
    ours = peak * curve(schedule, p["total_steps"], per_epoch, count=len(theirs))
    error_table.check("lr_simclr", "out_lr", ours, theirs)


def test_byol(fixture_file, error_table) -> None:
    file = fixture_file("lr_tau_byol")
    p, count = file["params"], len(file["out_lr"])
    schedule = Schedule(p["warm"] / p["ipe"], end_factor=p["end_lr"])
    lr = p["base"] * p["batch"] / 256 * curve(schedule, p["total_steps"], p["ipe"], count=count)
    tau = [cosine(min(1.0, step / p["total_steps"]), p["base_ema"], 1.0) for step in range(count)]
    error_table.check("lr_tau_byol", "out_lr", lr, file["out_lr"])
    error_table.check("lr_tau_byol", "out_tau", tau, file["out_tau"])


def test_moco_by_epoch(fixture_file, error_table) -> None:
    file = fixture_file("lr_moco")
    p = file["params"]
    milestones = tuple(epoch / p["epochs"] for epoch in p["schedule"])
    stairs = Schedule(0, milestones=milestones)
    half_cosine = Schedule(0, end_factor=0.0, per_epoch=True)
    for key, schedule in (("out_lr_step", stairs), ("out_lr_cos", half_cosine)):
        ours = p["lr"] * curve(schedule, p["epochs"] * 3, 3)
        error_table.check("lr_moco", key, ours.reshape(-1, 3), np.repeat(file[key][:, None], 3, axis=1))


def test_simsiam_by_epoch(fixture_file, error_table) -> None:
    file = fixture_file("lr_simsiam")
    p = file["params"]
    peak = p["base_lr"] * p["batch_size"] / 256
    schedule = Schedule(0, end_factor=0.0, per_epoch=True)
    ours = peak * np.stack([curve(schedule, p["epochs"], 1), np.ones(p["epochs"])], axis=1)
    error_table.check("lr_simsiam", "out_lr", ours, file["out_lr"])


def test_swav(fixture_file, error_table) -> None:
    file = fixture_file("swav_lr_schedule")
    p = file["params"]
    factors = {"start_factor": p["start_warmup"] / p["base_lr"], "end_factor": p["final_lr"] / p["base_lr"]}
    schedule = Schedule(p["warmup_epochs"], **factors, reaches_peak=True)
    ours = p["base_lr"] * curve(schedule, p["epochs"] * p["iters"], p["iters"])
    error_table.check("swav_lr_schedule", "out_lr", ours, file["out_lr"])


@pytest.mark.parametrize("name", ["dino_schedules", "beit_schedules"])
def test_warmup_that_reaches_its_peak(name: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    for number, call in enumerate(file["params"]["calls"]):
        per_epoch = call["niter_per_ep"]
        warmup = call.get("warmup_epochs", 0)
        if call.get("warmup_steps", -1) > 0:
            warmup = call["warmup_steps"] / per_epoch
        start = call.get("start_warmup_value", 0.0) / call["base_value"]
        schedule = Schedule(warmup, start, call["final_value"] / call["base_value"], reaches_peak=True)
        ours = call["base_value"] * curve(schedule, call["epochs"] * per_epoch, per_epoch)
        error_table.check(name, f"out_{number}", ours, file[f"out_{number}"])


@pytest.mark.parametrize("name", ["msn_schedules", "ijepa_schedules"])
def test_counting_from_one(name: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    epochs, stretch = p.get("epochs", p.get("num_epochs")), p.get("ipe_scale", 1.25)
    steps = epochs * p["ipe"]
    factors = {"start_factor": p["start_lr"] / p["lr"], "end_factor": p["final_lr"] / p["lr"]}
    lr = Schedule(p["warmup"], **factors, first_step=1, stretch=stretch)
    decay = dataclasses.replace(lr, warmup_epochs=0, end_factor=p["final_wd"] / p["wd"])
    error_table.check(name, "out_lr", p["lr"] * curve(lr, steps, p["ipe"]), file["out_lr"])
    error_table.check(name, "out_wd", p["wd"] * curve(decay, steps, p["ipe"]), file["out_wd"])
    first, last = p["ema"] if "ema" in p else (p["start_m"], p["final_m"])
    momentum = [linear(step / (steps * stretch), first, last) for step in range(steps)]
    error_table.check(name, "out_momentum", momentum, file["out_momentum"])
    if "out_T" in file:
        sharpening = [linear(step / (steps * stretch), p["_start_T"], p["_final_T"]) for step in range(steps)]
        error_table.check(name, "out_T", sharpening, file["out_T"])


def test_mae(fixture_file, error_table) -> None:
    file = fixture_file("mae_lr_schedule")
    p = file["params"]
    schedule = Schedule(p["warmup_epochs"], end_factor=p["min_lr"] / p["lr"])
    ours = p["lr"] * curve(schedule, p["epochs"] * p["n"], p["n"])
    error_table.check("mae_lr_schedule", "out_lr", ours, file["out_lr"])
    # A group's own scale multiplies the whole curve: 0.65 in the authors' example.
    error_table.check("mae_lr_schedule", "out_lr_scaled", 0.65 * ours, file["out_lr_scaled"])


def test_obow(fixture_file, error_table) -> None:
    file = fixture_file("obow_schedules")
    p, count = file["params"], len(file["out_alpha"])
    schedule = Schedule(p["warmup"], end_factor=p["end_lr"] / p["lr"], per_epoch=True)
    error_table.check("obow_schedules", "out_lr", p["lr"] * curve(schedule, p["epochs"], 1), file["out_lr"])
    alpha = [cosine(step / p["num_iterations"], p["alpha_base"], 1.0) for step in range(count)]
    error_table.check("obow_schedules", "out_alpha", alpha, file["out_alpha"])


def test_moco_momentum_is_constant() -> None:
    assert constant(0.7, 0.999, 1.0) == 0.999
