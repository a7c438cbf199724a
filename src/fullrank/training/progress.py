"""The progress bar of a run: how far, how fast, how healthy."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fullrank.training.adapter import Adapter
from fullrank.training.monitor import Monitor

# Without a terminal, one line this often (seconds) instead of a bar.
PLAIN_LINE_EVERY = 15.0
SHOWN = {
    "images_per_second": "{:.0f} images/s",
    "Y_effective_rank": "rank Y {:.1f}",
    "Z_effective_rank": "rank Z {:.1f}",
    "knn": "kNN {:.1f} %",
}


class ProgressLine(Callback):
    """A bar with the newest measurements below it on a terminal, a line now and then elsewhere."""

    def __init__(self, monitor: Monitor, console: Console) -> None:
        self.monitor = monitor
        self.console = console
        self.live: Live | None = None
        self.said_at = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero or not self.console.is_terminal or not isinstance(module, Adapter):
            return
        columns = [TextColumn("training"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("steps  elapsed")]
        self.bar = Progress(*columns, TimeElapsedColumn(), TextColumn(" ETA"), TimeRemainingColumn())
        self.task = self.bar.add_task("", total=module.total_steps, completed=trainer.global_step)
        self.words = Text()
        self.live = Live(Group(self.bar, self.words), console=self.console, refresh_per_second=4)
        self.live.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if not trainer.is_global_zero or not isinstance(module, Adapter):
            return
        if self.live is not None:
            self.bar.update(self.task, completed=trainer.global_step)
            self.words.plain = "\n".join(self.measures(module))
        elif time.monotonic() - self.said_at >= PLAIN_LINE_EVERY and self.monitor.latest:
            self.said_at = time.monotonic()
            self.console.print(f"step {trainer.global_step}/{module.total_steps}  {' · '.join(self.measures(module))}")

    def measures(self, module: Adapter) -> tuple[str, str]:
        """The newest measurements: the loss and its terms, then speed and health."""
        latest = self.monitor.latest
        terms = module.last.terms if module.last else {}
        words = [f"{name} {latest[name]:.3f}" for name in ("loss", *terms) if name in latest]
        health = [text.format(latest[name]) for name, text in SHOWN.items() if name in latest]
        return " · ".join(words), " · ".join(health)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is shown."""
        self._close()

    def _close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
