"""What is measured while a run goes on: loss terms, speed, and whether Y and Z are collapsing."""

from __future__ import annotations

import csv
import io
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fullrank import collapse
from fullrank.collapse.live import ROWS
from fullrank.errors import InputError
from fullrank.files import write_text
from fullrank.training.adapter import Adapter, Diverged

# Looks at the embeddings before the first warning: the first steps say nothing about a course.
EARLIEST_WARNING = 3
# The column that only rows with such a look have.
LOOKED = "Z_std"


class Monitor(Callback):
    """Measures a run as it goes, writes `metrics.csv`, and warns in words when a collapse begins.

    Args:
        path: where `metrics.csv` is written; rows of an earlier part of the run are kept.
        every: optimiser steps between two rows.
        look_every: optimiser steps between two looks at Y and Z, a multiple of `every`; the first row has one too.
        probe: gives the online kNN accuracy (0-100) of a backbone, or None where there are no labels.
        probe_every: optimiser steps between two probes.
        hints: settings of the run that a warning may speak of.
        say: where warnings go.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: int,
        look_every: int,
        probe: Callable[[Adapter], float] | None,
        probe_every: int,
        hints: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.path = path
        self.every = every
        self.look_every = look_every
        self.probe = probe
        self.probe_every = probe_every
        self.hints = hints
        self.say = say
        self.rows: list[dict[str, float]] = []
        self.warnings: list[dict[str, Any]] = []  # step and message
        self.latest: dict[str, float] = {}
        self.seconds = 0.0  # spent here, the kNN probe apart, for the share of the run that it costs
        self._recent: dict[str, deque[Tensor]] = {"Y": deque(), "Z": deque()}
        self._clock = (0, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint keeps beside the rows in `metrics.csv`."""
        return {"seconds": self.seconds, "warnings": self.warnings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.seconds, self.warnings = state_dict["seconds"], state_dict["warnings"]

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Keep the rows up to the step that is resumed from."""
        if trainer.global_step and self.path.exists():
            self.rows = [row for row in read_metrics(self.path) if row["step"] <= trainer.global_step]
        self._clock = (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the batch's embeddings; at every `every`-th step measure them and write a row."""
        if not trainer.is_global_zero or not isinstance(module, Adapter) or module.last is None:
            return
        self._remember(module)
        step, last = trainer.global_step, module.total_steps
        if (batch_idx + 1) % trainer.accumulate_grad_batches or (step % self.every and step != last):
            return
        row = self._row(trainer, module, step)
        began = time.monotonic()
        if step in (self.every, last) or step % self.look_every == 0:
            row |= self._look(module.method.on_sphere)
        self.seconds += time.monotonic() - began
        if self.probe and (step % self.probe_every == 0 or step == last):
            try:
                row["knn"] = self.probe(module)
            except InputError as error:  # features that are not finite
                raise Diverged(module.advice(str(error))) from error
        began = time.monotonic()
        self._record(row, trainer)
        self.seconds += time.monotonic() - began
        self._clock = (step, time.monotonic())

    def _remember(self, module: Adapter) -> None:
        assert module.last is not None
        for name, views in (("Y", module.last.representations), ("Z", module.last.embeddings)):
            recent = self._recent[name]
            recent.append(views[0].detach())
            while len(recent) > 1 and sum(map(len, recent)) - len(recent[0]) >= ROWS:
                recent.popleft()

    def _row(self, trainer: lightning.Trainer, module: Adapter, step: int) -> dict[str, float]:
        assert module.last is not None
        before, when = self._clock
        images = (step - before) * module.settings.batch_size
        return {
            "step": step,
            "epoch": round(step * module.settings.accumulate / module.plan.batches_per_epoch, 4),
            "loss": module.last.loss.item(),
            **{name: value.item() for name, value in module.last.terms.items()},
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": round(images / max(time.monotonic() - when, 1e-9), 1),
        }

    def _look(self, on_sphere: bool) -> dict[str, float]:
        """The live measures of Y and of Z, which is scaled to length 1 where the loss sees directions alone."""
        measures = {}
        for name, recent in self._recent.items():
            rows = torch.cat(tuple(recent))[-ROWS:].float()
            rows = collapse.to_sphere(rows) if on_sphere and name == "Z" else rows
            for measure, value in collapse.live_measures(rows).items():
                measures[f"{name}_{measure}"] = value
        return measures

    def _record(self, row: dict[str, float], trainer: lightning.Trainer) -> None:
        self.rows.append(row)
        self.latest |= row
        if LOOKED in row:
            self._warn(row["step"])
        write_metrics(self.path, self.rows)
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def _warn(self, step: float) -> None:
        looks = [row for row in self.rows if LOOKED in row]
        for warning in collapse.warn(looks, self.hints) if len(looks) >= EARLIEST_WARNING else []:
            self.warnings.append({"step": step, "message": warning})
            self.say(f"step {step}: {warning}")


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows as CSV; a value that was not measured at a step is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`; empty cells are left out."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {"step": int(row["step"])} for row in rows]
