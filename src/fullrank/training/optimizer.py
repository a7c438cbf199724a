"""The optimiser and the learning-rate schedule of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn, optim

from fullrank.errors import unknown
from fullrank.training.lars import LARS

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "lars": LARS,
    "adamw": optim.AdamW,
    "sgd": lambda groups, **options: optim.SGD(groups, momentum=0.9, **options),
}


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    learning_rate: float,
    bias_learning_rate: float | None,
    weight_decay: float,
) -> optim.Optimizer:
    """The optimiser over two groups: weights, and one-dimensional parameters (biases, norms) without decay.

    Learning rates are the highest of the schedule, already scaled by the batch size.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trainable if parameter.ndim != 1]
    biases = [parameter for parameter in trainable if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": biases, "lr": bias_learning_rate or learning_rate, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr=learning_rate)
