"""Learning rates of every step."""

import numpy as np

from fullrank.training.schedules import peak_lr, warmup_cosine


def factors(p: dict, steps: int) -> np.ndarray:
    lengths = {key: p[key] for key in ("steps_per_epoch", "epochs", "warmup_epochs", "end_factor")}
    return np.array([warmup_cosine(step, **lengths) for step in range(steps)])


def test_vicreg(fixture_file, error_table) -> None:
    file = fixture_file("lr_vicreg")
    p, theirs = file["params"], file["out_lr"]
    ours = peak_lr(p["base_lr"], p["batch_size"]) * factors(p, len(theirs))
    error_table.check("lr_vicreg", "out_lr", ours, theirs)


def test_barlow(fixture_file, error_table) -> None:
    file = fixture_file("lr_barlow")
    p, theirs = file["params"], file["out_lr"]
    peaks = [peak_lr(p[base], p["batch_size"]) for base in ("lr_weights", "lr_biases")]
    error_table.check("lr_barlow", "out_lr", np.outer(factors(p, len(theirs)), peaks), theirs)
