"""Saving a run: at intervals, on Ctrl-C and SIGTERM, and at the end; never half a file."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy

from fullrank.files import unwritable
from fullrank.machine import peak_memory
from fullrank.training.adapter import Adapter

SOONEST = 15.0  # seconds: a short run that is killed has not lost all
SHARE = 0.01  # of the time of a run that may go into checkpoints more frequent than was asked for


class Streamed(TorchCheckpointIO):
    """Writes a checkpoint straight to its file; Lightning's own way holds all of it in memory once more."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it. Raises `OSError` where the disk cannot take it; of that torch makes an error of its own."""
        failures: list[OSError] = []

        class Noting(io.FileIO):
            def write(self, data: Any) -> int:
                try:
                    return super().write(data)
                except OSError as error:
                    failures.append(error)
                    raise

        try:
            with io.BufferedWriter(Noting(path, "wb")) as file:
                torch.save(checkpoint, file)
        except RuntimeError:
            if failures:
                raise failures[0] from None
            raise


class Checkpointing(Callback):
    """Writes `last.ckpt` every few minutes, when asked to stop, and at the end."""

    def __init__(self, path: Path, minutes: float, record: dict[str, Any]) -> None:
        self.path = path
        self.interval = minutes * 60
        self.record = record  # settings and input of the run: a checkpoint alone can be evaluated
        self.began = self.saved_at = time.monotonic()
        self.signal: int | None = None
        self._took = 0.0  # seconds of writing the last one
        self._device = torch.device("cpu")
        self._before: dict[str, Any] = {"seconds": 0.0, "peak_memory": None}  # what earlier parts of the run cost
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        """Start the clock of this part of the run."""
        self.began = time.monotonic()
        if type(trainer.strategy).save_checkpoint is Strategy.save_checkpoint:  # others write in their own way
            trainer.strategy.checkpoint_io = Streamed()
        self._device = trainer.strategy.root_device

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """From here on Ctrl-C and SIGTERM end the run after the current step."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time; stop on all processes together when one was asked to."""
        stop, due = self.signal is not None, self.is_due(time.monotonic() - self.saved_at)
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        # Between two steps only: gradients that are being accumulated are not part of a checkpoint.
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # Weights that are not finite are never saved over good ones: the next loss will stop the run.
        if (stop or due) and between_steps and (not isinstance(module, Adapter) or module.is_finite()):
            self.save(trainer)
        trainer.should_stop = trainer.should_stop or (stop and between_steps)

    def is_due(self, since: float) -> bool:
        """Whether to save, so many seconds after the last time: every few minutes, sooner where that costs little."""
        return since >= min(self.interval, max(SOONEST, self._took / SHARE))

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save the end of the run and give the signals back."""
        if not trainer.should_stop:
            self.save(trainer)
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back; the last good checkpoint stays as it is."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def cost(self) -> dict[str, Any]:
        """Seconds of training so far, and the most memory in use: of the whole run, however often it was stopped."""
        peaks = (self._before["peak_memory"], peak_memory(self._device))
        return {
            "seconds": self._before["seconds"] + time.monotonic() - self.began,
            "peak_memory": max(filter(None, peaks), default=None),
        }

    def state_dict(self) -> dict[str, Any]:
        """The cost up to here, for the checkpoint."""
        return self.cost()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from there; a checkpoint without it counts from 0."""
        self._before = state_dict

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is needed to rebuild the network."""
        checkpoint["fullrank"] = self.record

    def save(self, trainer: lightning.Trainer) -> None:
        """Write a temporary file, then put it in place: a kill in between leaves the previous checkpoint."""
        began = time.monotonic()
        temporary = self.path.with_name(f".{self.path.name}.part")
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                descriptor = os.open(temporary, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
                os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise unwritable(self.path, error) from error
        self.saved_at = time.monotonic()
        self._took = self.saved_at - began
