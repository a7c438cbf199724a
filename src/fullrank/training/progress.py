"""The progress bar of a run: how far, how fast, how healthy."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fullrank.training.adapter import Adapter
from fullrank.training.monitor import Monitor

# Without a terminal, one line this often (seconds) instead of a bar.
PLAIN_LINE_EVERY = 15.0
SHOWN = {
    "loss": "loss {:.3f}",
    "images_per_second": "{:.0f} images/s",
    "Y_effective_rank": "rank Y {:.1f}",
    "Z_effective_rank": "rank Z {:.1f}",
    "knn": "kNN {:.1f} %",
}


class ProgressLine(Callback):
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, monitor: Monitor, console: Console) -> None:
        self.monitor = monitor
        self.console = console
        self.bar: Progress | None = None
        self.said_at = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero or not self.console.is_terminal or not isinstance(module, Adapter):
            return
        columns = [TextColumn("training"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()]
        self.bar = Progress(
            *columns,
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[measures]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=module.total_steps, completed=trainer.global_step, measures="")
        self.bar.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar."""
        if not trainer.is_global_zero or not isinstance(module, Adapter):
            return
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step, measures=self.measures(module))
        elif time.monotonic() - self.said_at >= PLAIN_LINE_EVERY and self.monitor.latest:
            self.said_at = time.monotonic()
            self.console.print(f"step {trainer.global_step}/{module.total_steps}  {self.measures(module)}")

    def measures(self, module: Adapter) -> str:
        """The newest measurements in one line."""
        latest = self.monitor.latest
        terms = module.last.terms if module.last else {}
        words = [f"{name} {latest[name]:.3f}" for name in terms if name in latest]
        words += [text.format(latest[name]) for name, text in SHOWN.items() if name in latest]
        return " · ".join(words)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is shown."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
