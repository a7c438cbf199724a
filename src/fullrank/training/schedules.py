"""Learning-rate schedules as pure functions of the optimiser step.

Code: `adjust_learning_rate` in facebookresearch/vicreg main_vicreg.py and facebookresearch/barlowtwins main.py.
"""

from __future__ import annotations

import math

from fullrank.errors import InputError


def peak_lr(base: float, batch: int) -> float:
    """Learning rate at the end of warm-up: `base` is stated for a global batch of 256."""
    return base * batch / 256


def warmup_for(epochs: float) -> float:
    """Warm-up in epochs for a run of `epochs`: the published 10, but never more than a tenth of the run.

    The published runs of 100 and 1000 epochs both warm up for 10. With that constant a run of 10 epochs
    or fewer would end inside its warm-up and never anneal.
    """
    return min(10.0, epochs / 10)


def warmup_cosine(
    step: int, *, steps_per_epoch: float, epochs: float, warmup_epochs: float = 10, end_factor: float = 0.001
) -> float:
    """Linear warm-up from 0, then half a cosine to `end_factor`, as a factor of the peak learning rate.

    With W warm-up steps and T steps in all:

        s <  W: s / W                                 the first step has factor 0, step W the factor 1
        s >= W: q + end_factor * (1 - q)              q = (1 + cos(pi (s - W) / (T - W))) / 2

    `end_factor` is reached at s = T, one after the last step, and kept from there on. A run with T <= W stays
    in warm-up, as it does in the authors' code; `warmup_for` gives a warm-up that suits short runs.

    Args:
        step: optimiser step s, counted from 0; the factor is for this step.
        steps_per_epoch: optimiser steps in one epoch; fractional where batches are accumulated over its end.
        epochs: length of the run; may be fractional.
        warmup_epochs: length of the warm-up; may be fractional.
        end_factor: factor at the end.

    Raises `InputError` for a negative step or a length below zero.
    """
    if step < 0 or not steps_per_epoch > 0 or epochs < 0 or warmup_epochs < 0:
        raise InputError(
            f"warmup_cosine got step={step}, steps_per_epoch={steps_per_epoch}, epochs={epochs}, "
            f"warmup_epochs={warmup_epochs}: expected no negative number and more than 0 steps per epoch"
        )
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return step / warmup
    if total <= warmup:
        return 1.0
    progress = min(1.0, (step - warmup) / (total - warmup))
    q = (1 + math.cos(math.pi * progress)) / 2
    return q + end_factor * (1 - q)
