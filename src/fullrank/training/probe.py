"""Linear probes as published: a classifier on frozen features of random crops, trained as long as the papers say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fullrank.data.source import Chosen
from fullrank.errors import unknown
from fullrank.evaluation.map_head import MapHead, published_stage
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.taps import MapTap, Tap
from fullrank.methods import Optimization
from fullrank.networks.batch_norm import synchronise_batch_norm
from fullrank.schedules import Progress, Schedule
from fullrank.training.answers import answers_of
from fullrank.training.classify import ClassifierRun, linear_head
from fullrank.training.optimizer import build_optimizer, set_rates
from fullrank.training.task import TRAINED, Task
from fullrank.views import Recipe, resized_views, supervised_views

COSINE = Schedule(warmup_epochs=0, end_factor=0.0, per_epoch=True)


@dataclass(frozen=True)
class Probe:
    """One published probe.

    Attributes:
        optimization: of the classifier.
        norm: the epsilon of a batch norm without scale before it; None for none.
        layer: whose features it takes, see `Tap`; None is the network's own output.
        maps: whether the layer's map is classified, pooled as its size asks, behind a batch norm: `MapHead`.
        views: image size -> the crops that it learns from.
    """

    optimization: Optimization
    norm: float | None = None
    layer: str | None = None
    maps: bool = False
    views: Callable[[int], Recipe] = supervised_views


def on_maps(learning_rate: float, weight_decay: float, epochs: int, *drops: float) -> Probe:
    """VISSL's probe of the last map; the rate is a tenth after each of the epochs `drops`."""
    schedule = Schedule(warmup_epochs=0, milestones=tuple(drop / epochs for drop in drops))
    nesterov = {"nesterov": True}
    optimization = Optimization(
        "sgd", learning_rate, weight_decay, 256, epochs, schedule, decays_1d=True, no_decay=("1.*",), options=nesterov
    )
    return Probe(optimization, layer="layer4", maps=True)


PUBLISHED: dict[str, Probe] = {
    # facebookresearch/vicreg: the paper and the README say 0.02, the script's default is 0.3.
    "vicreg": Probe(Optimization("sgd", 0.02, 1e-6, 256, 100, COSINE, decays_1d=True)),
    "barlowtwins": Probe(Optimization("sgd", 0.3, 1e-6, 256, 100, COSINE, decays_1d=True)),
    "swav": Probe(Optimization("sgd", 0.3, 1e-6, 256, 100, COSINE, decays_1d=True)),
    "moco": Probe(Optimization("sgd", 30.0, 0.0, 256, 100, Schedule(warmup_epochs=0, milestones=(0.6, 0.8)))),
    "dino": Probe(Optimization("sgd", 0.001, 0.0, 256, 100, COSINE), layer="last4"),
    "mae": Probe(Optimization("lars", 0.1, 0.0, 16384, 90, Schedule(10, end_factor=0.0)), norm=1e-6),
    # valeoai/obow, its README: a rate of 10 at 1024 pictures; of Places the command's decay, its run's name says 1e-4.
    "obow": Probe(Optimization("sgd", 2.5, 0.0, 1024, 100, COSINE)),
    "obow places": Probe(
        Optimization("sgd", 0.01, 1e-5, 256, 28, Schedule(0, milestones=(10 / 28, 20 / 28)), decays_1d=True),
        norm=1e-5,
        views=resized_views,
    ),
    # facebookresearch/vissl, and what the two papers say; the drops of VICReg's Places are those of 14 epochs.
    "vissl imagenet": on_maps(0.01, 5e-4, 28, 8, 16, 24),
    "vissl places": on_maps(0.01, 5e-4, 14, 4, 8, 12),
    "vissl inat": on_maps(0.01, 5e-4, 84, 24, 48, 72),
    "barlowtwins places": on_maps(0.01, 5e-4, 14, 14 / 3, 28 / 3),
    "barlowtwins inat": on_maps(0.01, 5e-4, 84, 28, 56),
    "vicreg places": on_maps(0.003, 1e-4, 28, 4, 8, 12),
    "vicreg inat": on_maps(0.005, 1e-4, 84, 24, 48, 72),
}


@TRAINED.register("linear")
def linear_as_published(
    task: Task,
    *,
    schedule: str = "vicreg",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
) -> Result:
    """A linear classifier on the frozen network, which sees other crops of a picture in every epoch.

    The scores are those after the last epoch; `best` is the best epoch, which the authors' scripts report.

    Args:
        task: network and labelled pictures.
        schedule: quick (`linear_probe`), or whose published one: vicreg, barlowtwins, swav, moco, dino, mae, obow,
            "vissl imagenet"; of Places205 and iNaturalist18: "vicreg places", "vicreg inat", the same of barlowtwins
            and vissl, and "obow places".
        epochs: in place of the published ones.
        batch_size: in place of the published one; rates follow it in proportion.
        learning_rate: per 256 pictures, in place of the published one.
        seed: of first weights, order and crops.

    Raises:
        InputError: an unknown schedule, or a network that lacks the layer that it takes.
    """
    if schedule not in PUBLISHED:
        raise unknown("schedule", schedule, ["quick", *PUBLISHED], listed=True)
    probe = PUBLISHED[schedule]
    probe = dataclasses.replace(probe, layer=task.layer or probe.layer)
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    asked = {name: value for name, value in given.items() if value is not None}
    pictures = Chosen(task.train.source, task.train.indices)
    optimization = dataclasses.replace(probe.optimization, **asked)
    optimization = dataclasses.replace(optimization, batch_size=min(optimization.batch_size, len(pictures)))
    run = prober(task, pictures, dataclasses.replace(probe, optimization=optimization), seed)
    scores = run.run()
    settings = dataclasses.asdict(optimization) | {"schedule": schedule, "layer": probe.layer, "seed": seed}
    return Result(
        protocol="linear",
        scores=scores,
        n_train=len(pictures),
        n_test=run.judged,
        classes=len(pictures.classes),
        settings=settings,
        by_class=run.by_class,
        notes=run.notes,
    )


def prober(task: Task, pictures: Chosen, probe: Probe, seed: int) -> ClassifierRun:
    """A run of the classifier alone."""
    torch.manual_seed(seed)
    model = task.model
    tap = (MapTap if probe.maps else Tap)(model.backbone, probe.layer, task.pooling).requires_grad_(False)
    with torch.no_grad():
        size, channels = model.image_size, task.pixels.channels
        given = tap.eval()(torch.zeros(1, channels, size, size)).shape
    if probe.maps:
        head: nn.Sequential = MapHead.of_map(published_stage(str(probe.layer)), given[1:], len(pictures.classes))
    else:
        head = nn.Sequential(
            *([] if probe.norm is None else [nn.BatchNorm1d(given[1], probe.norm, affine=False)]),
            linear_head(given[1], len(pictures.classes)),
        )
    if task.fabric.world_size > 1:  # as OBoW's and VISSL's, so that the result is that of one process
        head = synchronise_batch_norm(head, task.fabric.device.type)  # type: ignore[assignment]
    answers_of(pictures).begin(head[-1], torch.from_numpy(pictures.known))  # type: ignore[arg-type]

    def rates(optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        set_rates(optimizer, probe.optimization, progress)

    return ClassifierRun(
        task,
        pictures,
        nn.Sequential(tap, head),
        build_optimizer(head, probe.optimization),
        rates,
        epochs=probe.optimization.epochs,
        batch_size=probe.optimization.batch_size,
        seed=seed,
        frozen=tap,
        views=probe.views,
    )
