"""Fine-tuning on few labels: the network and a linear classifier on it, each with its own learning rate."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fullrank.data.source import Chosen
from fullrank.errors import InputError, unknown
from fullrank.evaluation.finetuning import PUBLISHED, FineTuning
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.splits import Part
from fullrank.evaluation.subsets import listed, share_of_classes, share_of_targets
from fullrank.networks import feature_width
from fullrank.schedules import Progress
from fullrank.training.answers import answers_of
from fullrank.training.classify import ClassifierRun, linear_head
from fullrank.training.task import TRAINED, Task

MOMENTUM = 0.9


def recipe_of(name: str, percent: float) -> FineTuning:
    """The published recipe of a method for the nearest share of labels. Raises `InputError` for another name."""
    known = {method for (method, _), recipe in PUBLISHED.items() if recipe.optimizer == "sgd"}
    if name == "simclr v2":
        raise InputError("SimCLR v2 tunes a layer of the projector too, which a backbone lacks: take another recipe")
    if name not in known:
        raise unknown("fine-tuning recipe", name, known, listed=True)
    shares = [share for method, share in PUBLISHED if method == name]
    return PUBLISHED[name, min(shares, key=lambda share: abs(np.log(percent / share)))]


@TRAINED.register("finetune")
def finetune(
    task: Task,
    *,
    percent: float = 100.0,
    subset: str | None = None,
    recipe: str = "vicreg",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    seed: int = 0,
) -> Result:
    """Train network and classifier on a share of the labels, and classify the test pictures.

    Augmentations are random crops of default area and flips. The scores are those after the last epoch; `best` is the
    best epoch, which the authors' scripts report.

    Args:
        task: network and labelled pictures.
        percent: of every class's pictures; where they have several labels each, of all pictures,
            and at least one of every class.
        subset: file that lists the pictures in place of `percent`, such as the official 1 % of ImageNet.
        recipe: whose published settings: vicreg, barlowtwins (of the code; "barlowtwins paper"), swav or obow.
        epochs: in place of the recipe's.
        batch_size: in place of the recipe's; rates follow it in proportion.
        learning_rate: of the network, at the recipe's batch size.
        head_learning_rate: of the classifier, likewise.
        seed: of first weights, order and crops, and of the pictures that are chosen.

    Raises:
        InputError: a share or subset that leaves a class without a picture, or an unknown recipe.
    """
    given: dict[str, Any] = {"epochs": epochs, "trunk": learning_rate, "head": head_learning_rate}
    asked = {name: value for name, value in given.items() if value is not None}
    plan = dataclasses.replace(recipe_of(recipe, percent), **asked)
    pictures = Chosen(task.train.source, _chosen(task.train, percent, subset, seed))
    tuner = fine_tuner(task, pictures, plan, batch_size, seed)
    scores = tuner.run()
    settings = dataclasses.asdict(plan) | {"schedule": str(plan.schedule), "batch_size": tuner.batches.batch_size}
    return Result(
        protocol="finetune",
        scores=scores,
        n_train=len(pictures),
        n_test=tuner.judged,
        classes=len(task.train.source.classes),
        settings=settings | {"percent": percent, "subset": subset, "recipe": recipe, "seed": seed},
        by_class=tuner.by_class,
        notes=tuner.notes,
    )


def _chosen(train: Part, percent: float, subset: str | None, seed: int) -> np.ndarray:
    source = train.source
    if subset is not None:
        chosen = np.intersect1d(listed(Path(subset), source.names, source.name), train.indices)
        missing = np.setdiff1d(_classes_in(train.known), _classes_in(train.answers(chosen)))
        if len(missing):
            raise InputError(f"subset {subset} has no picture of {len(missing)} classes: {source.classes[missing[0]]}")
        return chosen
    share = share_of_classes if train.known.ndim == 1 else share_of_targets
    return train.indices[share(train.known, percent, seed)]


def _classes_in(known: np.ndarray) -> np.ndarray:
    return np.unique(known) if known.ndim == 1 else np.flatnonzero((known == 1).any(0))


def fine_tuner(task: Task, pictures: Chosen, recipe: FineTuning, batch_size: int | None, seed: int) -> ClassifierRun:
    """A run of a copy of the network and its classifier; rates are in proportion to the batch."""
    torch.manual_seed(seed)
    head = linear_head(feature_width(task.model.backbone), len(pictures.classes))
    answers_of(pictures).begin(head, torch.from_numpy(pictures.known))
    network = nn.Sequential(copy.deepcopy(task.model.backbone), head)
    optimizer = torch.optim.SGD([{"params": part.parameters()} for part in network], lr=0.0, momentum=MOMENTUM)
    rows = min(batch_size or recipe.batch_size, len(pictures))

    def set_rates(optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        for group, rate in zip(optimizer.param_groups, recipe.rates(progress), strict=True):
            group["lr"] = rate * rows / recipe.batch_size

    return ClassifierRun(
        task, pictures, network, optimizer, set_rates, epochs=recipe.epochs, batch_size=rows, seed=seed
    )
