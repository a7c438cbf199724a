"""How long a run would take here: a few of its steps, timed."""

from __future__ import annotations

import copy
import dataclasses
import math
import signal
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fullrank.data import open_source, some_of
from fullrank.data.check import SourceCheck, check_source
from fullrank.data.loading import choose_placement
from fullrank.data.memory import available_memory
from fullrank.data.source import Source
from fullrank.data.streams import Stream
from fullrank.errors import InputError, Interrupted
from fullrank.evaluation.features import choose_device
from fullrank.evaluation.splits import is_labelled
from fullrank.machine import hardware
from fullrank.report.wording import duration
from fullrank.runs.build import build_method, text_encoder_of
from fullrank.runs.settings import resolve, stored
from fullrank.terminal import log_console
from fullrank.training.fit import build_adapter, lightning_trainer, make_plan, quiet
from fullrank.training.prepare import prepare
from fullrank.training.speed import choose_speed, keep_freed_memory

TIMED_STEPS, WARM_UP = 3, 1
FEW = 32  # pictures of a batch that is timed first
WITH_STATE = 4  # numbers a parameter: itself, its gradient and two of the optimiser
LONG = 1.5  # seconds: a step that would take longer is timed with a batch of few alone
LOOKED = 512  # pictures that are opened for it
Known = Literal["nothing", "one", "several"]


@dataclass(frozen=True)
class Opened:
    """A set of pictures that was opened to see what a run on it takes.

    Attributes:
        count: of its pictures; None for a stream.
        image_size: pixels a side that a network would see.
        placement: where the pictures are kept.
        pictures: a few of them.
        known: what is known of a picture: nothing, one label, or several; of a stream as its first pictures have it.
        smallest_class: pictures of the class that has fewest; None where a picture has no or several labels.
        captions: of a picture, on the average of a few; 0 where there are none.
    """

    count: int | None
    image_size: int
    placement: Literal["memory", "workers"]
    pictures: Source
    known: Known
    smallest_class: int | None
    captions: float


@dataclass(frozen=True)
class RunPlan:
    """What would be trained, and how long it would take.

    Attributes:
        settings: of the run.
        pictures: samples of an epoch; None for a stream.
        parameters: of the method's network, projector and all.
        views: pixels a side and number of each kind of view.
        steps: of the optimiser.
        devices: over all machines.
        step: seconds of one step, measured on one device with its share of the batch; what devices say to each other
            is not in it.
    """

    settings: Mapping[str, Any]
    pictures: int | None
    parameters: int
    views: tuple[tuple[int, int], ...]
    steps: int
    devices: int
    step: float

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.steps * self.step

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self) | {"seconds": self.seconds}

    def render(self) -> Any:
        """The plan on a terminal."""
        said, table = self.settings, Table(box=None, show_header=False, pad_edge=False)
        pictures = "a stream" if self.pictures is None else f"{self.pictures:,} samples"
        share = f", {said['batch_size'] // self.devices} on each of {self.devices} devices" if self.devices > 1 else ""
        epochs = "" if self.pictures is None else f", {self.steps * said['batch_size'] / self.pictures:.4g} epochs"
        views = " and ".join(f"{count} of {size} px" for size, count in self.views)
        apart = " apart from what devices say to each other" if self.devices > 1 else ""
        rows = {
            "data": f"{said['data']}, {pictures}",
            "network": f"{said['method']} on {said['backbone']}, {self.parameters / 1e6:,.1f} M parameters",
            "views": views,
            "run": f"{self.steps:,} steps of {said['batch_size']:,}{share}{epochs}",
            "optimizer": f"{said['optimizer']}, learning rate {said['learning_rate']:g} per 256 images, "
            f"weight decay {said['weight_decay']:g}",
            "a step": f"{self.step:.3g} s on {hardware(choose_device('auto'))['device']}, measured{apart}",
            "the run": f"about {duration(self.seconds)}, and what is measured at its end",
        }
        for name, words in rows.items():
            table.add_row(name, escape(words))
        return table


def plan_run(given: Mapping[str, Any]) -> RunPlan:
    """What `fullrank.train` does when asked for the plan. Nothing is written."""
    settings = resolve(given)
    log_console().print("timing a few steps ...", markup=False)
    opened = open_few(settings)
    if opened.count is None and settings.steps is None:
        raise InputError(f"{settings.data} is a stream of unknown length: give --steps in place of epochs")
    prepared = prepare(_with_pictures(settings, opened.pictures, few=2), Console(quiet=True))
    parameters = sum(parameter.numel() for parameter in build_method(settings, prepared.facts)[0].parameters())
    per_picture = opened.captions if text_encoder_of(settings) else 1
    items = None if opened.count is None else round(opened.count * per_picture)
    steps = settings.steps or make_plan(settings, items or 0).batches // settings.accumulate
    sizes: dict[int, int] = {}
    for view in prepared.recipe:
        sizes[view.size] = sizes.get(view.size, 0) + view.count
    devices = devices_of(settings)
    share = copy.copy(settings)
    share.batch_size = max(2 * settings.accumulate, settings.batch_size // devices)
    return RunPlan(
        stored(settings),
        items,
        parameters,
        tuple(sizes.items()),
        steps,
        devices,
        seconds_of_step(share, opened, few=few_of(parameters)),
    )


def few_of(parameters: int) -> int:
    """Pictures of a batch that is timed first: two for a network that takes much of the memory by itself."""
    held = WITH_STATE * 4 * parameters
    return FEW if torch.cuda.is_available() or held < available_memory() / 2 else 2


def devices_of(settings: SimpleNamespace) -> int:
    """How many devices a run would use, over all machines."""
    on_gpu = torch.cuda.is_available() and settings.accelerator != "cpu"
    usual = torch.cuda.device_count() if on_gpu else 1
    asked = usual if settings.devices in ("auto", -1, "-1") else int(settings.devices)
    return max(1, asked) * settings.num_nodes


def check_with_estimate(
    data: Any,
    *,
    split: str | None,
    include: str | None,
    batch_size: int | None,
    epochs: float | None,
    backbone: str | None,
) -> SourceCheck:
    """What `fullrank.check` does."""
    settings = resolve(
        {"data": data, "split": split, "include": include}
        | {"batch_size": batch_size, "epochs": epochs, "backbone": backbone}
    )
    check = check_source(open_source(data, split, include), batch_size=settings.batch_size)
    if check.problems or check.pixels is None or check.count is None:
        return check
    log_console().print("timing a few steps ...", markup=False)
    opened = open_few(settings)
    steps = make_plan(settings, check.count).batches
    return dataclasses.replace(check, steps=steps, seconds=steps * seconds_of_step(settings, opened))


def open_few(settings: SimpleNamespace) -> Opened:
    """A few of the pictures that a run would open. Raises `InputError` for unusable data."""
    whole = open_source(settings.data, settings.split, settings.include, settings.captions, samples=settings.samples)
    if not isinstance(whole, Stream) and settings.batch_size > len(whole):
        raise InputError(f"batch_size {settings.batch_size} is larger than the set of {len(whole)} images: lower it")
    few = some_of(whole, LOOKED)
    prepared = prepare(_with_pictures(settings, few, few=2), Console(quiet=True))
    forced = None if settings.placement == "auto" else settings.placement
    placement, _ = choose_placement(whole, prepared.pixels, prepared.image_size, forced)
    source = few if isinstance(whole, Stream) else whole
    known: Known = "nothing" if not is_labelled(source) else "one" if source.targets is None else "several"
    labels = source.labels if known == "one" and source.labels is not None else np.zeros(0, np.int64)
    return Opened(
        count=None if isinstance(whole, Stream) else len(whole),
        image_size=prepared.image_size,
        placement=placement,
        pictures=few,
        known=known,
        smallest_class=int(np.unique(labels[labels >= 0], return_counts=True)[1].min()) if labels.size else None,
        captions=sum(map(len, few.captions)) / len(few) if few.captions is not None else 0.0,
    )


def seconds_of_step(settings: SimpleNamespace, opened: Opened, few: int = FEW) -> float:
    """Of an optimiser step of these settings on one device, its views included: the median of a few.

    Timed is a batch of few pictures, and where that is quick one of as many as are open. Where workers decode, what
    they are ahead with when the first step ends is not in it.

    Raises `InputError` for settings that a run would refuse.
    """
    settings = copy.copy(settings)
    settings.compile, settings.devices, settings.strategy, settings.num_nodes = False, 1, "auto", 1
    settings.placement = opened.placement
    keep_freed_memory()
    choose_speed(settings)
    full, accumulate = settings.batch_size, settings.accumulate
    few = max(2, min(full, few, len(opened.pictures)) // accumulate) * accumulate
    seconds = _timed(settings, opened.pictures, few)
    most = min(full, len(opened.pictures) // accumulate * accumulate)
    if few < most and seconds * most / few < LONG:
        few, seconds = most, _timed(settings, opened.pictures, most)
    return seconds * full / few


def _timed(settings: SimpleNamespace, pictures: Source, batch_size: int) -> float:
    settings = _with_pictures(settings, pictures, few=batch_size)
    prepared = prepare(settings, Console(quiet=True))
    with tempfile.TemporaryDirectory() as folder:
        adapter = build_adapter(settings, prepared, Path(folder), Console(quiet=True))
        clock = Clock()
        trainer = lightning_trainer(settings, adapter.total_steps, [clock], False, Path(folder))
        try:
            with quiet():
                trainer.fit(adapter)
        except SystemExit as end:  # what Lightning makes of a signal
            number = signal.SIGTERM if isinstance(end, SIGTERMException) else signal.SIGINT
            raise Interrupted("stopped; nothing was saved", number) from end
    return statistics.median(clock.seconds[WARM_UP:])


def _with_pictures(settings: SimpleNamespace, pictures: Source, *, few: int) -> SimpleNamespace:
    """The same settings on pictures that are open already, for a few steps of a few of them."""
    own = {"data": pictures, "split": None, "include": None, "captions": None, "samples": None}
    length = {"batch_size": few, "steps": WARM_UP + TIMED_STEPS, "resume": False, "overwrite": False, "workers": 1}
    return SimpleNamespace(**vars(settings) | own | length)


class Clock(Callback):
    """Seconds of every optimiser step, from batch to batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = math.nan

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """The first step begins."""
        self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has ended, where the batch was the last of its accumulated ones."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        float(outputs["loss"])  # a GPU has come to the end of the step
        now = time.monotonic()
        self.seconds.append(now - self._began)
        self._began = now
