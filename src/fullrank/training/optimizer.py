"""The optimiser of a run and its rates at every step, from a method's `Optimization`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import nn, optim

from fullrank.errors import unknown
from fullrank.methods import Optimization
from fullrank.schedules import Progress
from fullrank.training.lars import LARS

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "lars": LARS,
    "larc": partial(LARS, sum_of_norms=True, decay_1d=True, adapt_1d=True),
    "sgd": partial(optim.SGD, momentum=0.9),
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}
# Settings of a run that take the place of what the method publishes.
ADJUSTABLE = ("optimizer", "learning_rate", "weight_decay", "batch_size", "epochs")
# The same where they have one: none is none.
OPTIONAL = ("bias_learning_rate", "weight_decay_end")


def optimization_for(published: Optimization, settings: SimpleNamespace) -> Optimization:
    """What is published, with what the settings of a run change.

    Another optimiser than the published one takes none of its particulars along: it decays weights only.
    """
    chosen = {name: getattr(settings, name) for name in ADJUSTABLE if getattr(settings, name) is not None}
    chosen |= {name: getattr(settings, name) for name in OPTIONAL}
    schedule = published.schedule
    if settings.end_factor is not None:
        schedule = dataclasses.replace(schedule, end_factor=settings.end_factor)
    if settings.warmup_epochs is not None:
        schedule = dataclasses.replace(schedule, warmup_epochs=settings.warmup_epochs)
    if chosen.get("optimizer", published.optimizer) != published.optimizer:
        chosen |= {"options": {}, "decays_1d": False}
    return dataclasses.replace(published, schedule=schedule, **chosen)


def build_optimizer(model: nn.Module, optimization: Optimization) -> optim.Optimizer:
    """The optimiser over groups of parameters that share learning rate, decay and schedule.

    Raises `InputError` for an optimiser of another name.
    """
    if optimization.optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimization.optimizer, OPTIMIZERS)
    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rates = _rates(name, parameter.ndim == 1, optimization)
            groups.setdefault(tuple(rates.values()), {"params": [], **rates})["params"].append(parameter)
    for group in groups.values():
        group |= {"lr": group["highest_lr"], "weight_decay": optimization.weight_decay if group["decays"] else 0.0}
    highest = optimization.learning_rate * optimization.batch_size / 256
    return OPTIMIZERS[optimization.optimizer](list(groups.values()), lr=highest, **optimization.options)


def _rates(name: str, is_vector: bool, optimization: Optimization) -> dict[str, Any]:
    base = optimization.bias_learning_rate if is_vector else None
    spared = (is_vector and not optimization.decays_1d) or _matches(name, optimization.no_decay)
    return {
        "highest_lr": (base or optimization.learning_rate) * optimization.batch_size / 256,
        "decays": not spared,
        "scheduled": not _matches(name, optimization.constant_rate),
    }


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def set_rates(optimizer: optim.Optimizer, optimization: Optimization, progress: Progress) -> None:
    """Learning rate and weight decay of every group for the step that comes next."""
    factor, decay = optimization.schedule(progress), optimization.weight_decay
    if optimization.weight_decay_end is not None:
        cosine = dataclasses.replace(optimization.schedule, warmup_epochs=0, end_factor=0, per_epoch=False)
        end = optimization.weight_decay_end
        decay = end + (decay - end) * cosine(progress)
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * (factor if group["scheduled"] else 1.0)
        group["weight_decay"] = decay if group["decays"] else 0.0
