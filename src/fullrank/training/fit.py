"""One run from start to end: settings, data, network, training, results."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console

from fullrank.errors import InputError, Interrupted
from fullrank.files import write_text
from fullrank.networks.batch_norm import synchronise_batch_norm
from fullrank.runs.build import build_method, check_sizes
from fullrank.runs.folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    TOKENIZER,
    Run,
    read_checkpoint,
    rebuild_settings,
    refuse_folder,
    start_folder,
)
from fullrank.runs.hints import hints_of
from fullrank.runs.settings import FREE, agree, resolve, stored, train_options, usual_warmup
from fullrank.terminal import log_console
from fullrank.training.adapter import Adapter
from fullrank.training.batches import Plan
from fullrank.training.checkpointing import Checkpointing
from fullrank.training.finish import finish
from fullrank.training.gain import ONLINE, online_probe
from fullrank.training.monitor import Monitor
from fullrank.training.prepare import Prepared, prepare
from fullrank.training.progress import ProgressLine
from fullrank.training.speed import choose_speed, keep_freed_memory

ROWS = 200  # of metrics.csv in a whole run, at most
LOOK_EVERY = 10  # steps between two looks at Y and Z, at least: one costs about a tenth of a fast step
PROBES = 10  # online kNN measurements in a whole run, at most
PROBE_SHARE = 0.03  # of the run's time that they may take, where a picture costs six passes in training and one here


def train_run(given: Mapping[str, Any]) -> Run:
    """What `fullrank.train` does. Nothing is written before everything that can be refused was looked at."""
    asked = {key: value for key, value in given.items() if value is not None}
    console = log_console()
    settings = resolve(given)
    folder = Path(settings.output or default_folder(settings))
    settings.output = str(folder)
    if settings.resume:
        settings = resumed_settings(folder, asked)
        if Run(folder).summary.get("finished"):
            console.print(f"{folder} is finished: nothing is left to train")
            return Run(folder)
    elif is_first_process():
        refuse_folder(folder, overwrite=settings.overwrite)
    prepared = prepare(settings, console)
    adapter = build_adapter(settings, prepared, folder, console)
    trainer, monitor, checkpointing = build_trainer(folder, settings, adapter, prepared, console)
    if is_first_process() and not settings.resume:
        start_run(folder, settings, prepared)
    return fit(Run(folder), trainer, adapter, prepared, monitor, checkpointing, console)


def default_folder(settings: SimpleNamespace) -> str:
    """runs/<data>-<method>."""
    return f"runs/{data_stem(settings.data)}-{settings.method}"


def data_stem(data: Any) -> str:
    """What data is called in the name of a folder."""
    named = str(data) if isinstance(data, str | Path) else "array"
    stem = Path(named.split("[")[0]).name.split(".")[0].replace(":", "-").replace(",", "-").replace("=", "")
    return stem or "data"


def is_first_process() -> bool:
    """Whether this process writes files: rank 0, also before the processes are connected."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


def resumed_settings(folder: Path, asked: Mapping[str, Any]) -> SimpleNamespace:
    """The settings of the run in `folder`; only where and how it is carried out may be given anew."""
    if not (folder / CHECKPOINT).exists():
        how = "with --overwrite in place of" if (folder / CONFIG).exists() else "without"
        raise InputError(f"nothing to resume in {folder}: it has no {CHECKPOINT}; start it {how} --resume")
    before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    defaults = train_options()
    explicit = {key: value for key, value in asked.items() if key not in defaults or defaults[key] != value}
    agree(explicit, before)
    return rebuild_settings(
        defaults | before | {key: explicit[key] for key in explicit if key in FREE or key == "data"}
    )


def make_plan(settings: SimpleNamespace, samples: int) -> Plan:
    """How many batches make up the run."""
    per_batch = settings.batch_size // settings.accumulate
    batches_per_epoch = samples // per_batch
    steps = settings.steps or max(1, int(settings.epochs * batches_per_epoch / settings.accumulate))
    return Plan(samples, per_batch, steps * settings.accumulate, settings.seed)


def record(settings: SimpleNamespace, prepared: Prepared) -> dict[str, Any]:
    """All that is needed to rebuild the network and to embed other pictures."""
    return {"settings": stored(settings), "input": prepared.input()}


def start_run(folder: Path, settings: SimpleNamespace, prepared: Prepared) -> None:
    """The folder of a new run with what is known before it begins."""
    start_folder(folder, stored(settings), overwrite=settings.overwrite)
    if prepared.tokenizer:
        write_text(folder / TOKENIZER, prepared.tokenizer.text)
    Run(folder).write_summary({"name": folder.name, "finished": False, **record(settings, prepared)})


def build_adapter(settings: SimpleNamespace, prepared: Prepared, folder: Path, console: Console) -> Adapter:
    """The method on its data, at the step where the run begins or goes on."""
    method, stem = build_method(settings, prepared.facts)
    check_sizes(method, prepared.recipe, prepared.facts.channels)
    parameters = sum(parameter.numel() for parameter in method.parameters()) / 1e6
    console.print(
        f"network: {settings.method} on {settings.backbone}, {parameters:.1f} M parameters, "
        f"at {prepared.image_size} px: {stem.reason}",
        markup=False,
    )
    start = read_checkpoint(folder / CHECKPOINT)["global_step"] * settings.accumulate if settings.resume else 0
    plan = make_plan(settings, prepared.items)
    epochs = plan.batches / plan.batches_per_epoch
    if settings.warmup_epochs is None:
        settings.warmup_epochs = usual_warmup(method.published, epochs)
    steps = plan.batches // settings.accumulate
    words = f", going on after step {start // settings.accumulate:,}" if settings.resume else ""
    console.print(f"run: {steps:,} steps of {settings.batch_size} images by {settings.optimizer}{words}", markup=False)
    if settings.warmup_epochs > epochs / 2:
        when = "never" if settings.warmup_epochs >= epochs else "late"
        console.print(
            f"warm-up: {settings.warmup_epochs:g} epochs of {epochs:.3g}, so the learning rate reaches its "
            f"highest {when}: give a shorter --warmup_epochs",
            markup=False,
        )
    return Adapter(method, prepared.feed, plan, settings, start=start, labels=prepared.labels)


def fit(
    run: Run,
    trainer: lightning.Trainer,
    adapter: Adapter,
    prepared: Prepared,
    monitor: Monitor,
    checkpointing: Checkpointing,
    console: Console,
) -> Run:
    """Train, or go on training, and write everything that a run holds."""
    settings = adapter.settings
    with quiet():
        trainer.fit(adapter, ckpt_path=run.folder / CHECKPOINT if settings.resume else None, weights_only=True)
    if checkpointing.signal is not None:
        words = f"stopped at step {trainer.global_step} of {adapter.total_steps} and saved"
        raise Interrupted(f"{words}; to go on: fullrank train --resume --output {run.folder}", checkpointing.signal)
    if trainer.is_global_zero:
        # Nothing is trained any more: an untrained network, to compare with, gets the place of the optimiser's state.
        adapter.zero_grad(set_to_none=True)
        trainer.strategy.optimizers = []
        finish(run, adapter, prepared, monitor, cost=checkpointing.cost(), console=console)
    return run


def build_trainer(
    folder: Path, settings: SimpleNamespace, adapter: Adapter, prepared: Prepared, console: Console
) -> tuple[lightning.Trainer, Monitor, Checkpointing]:
    """Lightning's trainer with the callbacks of a run."""
    method = adapter.method
    every = math.ceil(adapter.total_steps / ROWS)
    seen = adapter.total_steps * settings.batch_size
    probes = max(1, min(PROBES, int(PROBE_SHARE * 6 * seen / sum(ONLINE))))
    monitor = Monitor(
        folder / METRICS,
        every=every,
        look_every=every * math.ceil(LOOK_EVERY / every),
        probe=online_probe(prepared, settings),
        probe_every=every * max(1, adapter.total_steps // (every * probes)),  # with a row of metrics
        hints=hints_of(settings),
        say=lambda words: console.print(f"warning: {words}", markup=False, style="bold"),
    )
    kept = record(settings, prepared) | ({"tokenizer": prepared.tokenizer.text} if prepared.tokenizer else {})
    checkpointing = Checkpointing(folder / CHECKPOINT, settings.save_minutes, kept)
    keep_freed_memory()
    compiles, words = choose_speed(settings)
    console.print(f"speed: {words}", markup=False)
    if compiles:
        for module in method.compilable():
            module.compile()
    if settings.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    callbacks = [monitor, checkpointing, ProgressLine(monitor, console)]
    trainer = lightning_trainer(settings, adapter.total_steps, callbacks, build_logger(settings, folder), folder)
    if trainer.world_size > 1:
        if (settings.batch_size // settings.accumulate) % trainer.world_size:
            raise InputError(f"batch_size {settings.batch_size} does not divide over {trainer.world_size} processes")
        synchronise_batch_norm(method, trainer.strategy.root_device.type)
    return trainer, monitor, checkpointing


def lightning_trainer(
    settings: SimpleNamespace, steps: int, callbacks: Sequence[Callback], logger: Logger | bool, folder: Path
) -> lightning.Trainer:
    """Lightning's trainer for so many optimiser steps. Raises `InputError` for devices that it cannot use."""
    try:
        with quiet():
            return lightning.Trainer(
                accelerator=settings.accelerator,
                devices=settings.devices,
                num_nodes=settings.num_nodes,
                strategy=settings.strategy,
                precision=settings.precision,
                max_epochs=1,
                max_steps=steps,
                accumulate_grad_batches=settings.accumulate,
                callbacks=list(callbacks),
                log_every_n_steps=1,  # the monitor decides
                logger=logger,
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
            )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(f"these devices, strategy or precision cannot be used: {error}") from error


def build_logger(settings: SimpleNamespace, folder: Path) -> Logger | bool:
    """TensorBoard in the run's folder, or what was asked for."""
    if settings.logger == "tensorboard":
        return TensorBoardLogger(folder, name="tensorboard", version="")
    if settings.logger == "wandb":
        if importlib.util.find_spec("wandb") is None:
            raise InputError("--logger wandb needs an extra: pip install 'fullrank[wandb]'")
        return WandbLogger(name=folder.name, save_dir=folder, project="fullrank")
    return False


class quiet:
    """Keeps Lightning's remarks about what this adapter does on purpose out of the log."""

    def __enter__(self) -> None:
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        for words in ("does not have many workers", "isinstance(treespec, LeafSpec)", "GPU available but not used"):
            warnings.filterwarnings("ignore", f".*{re.escape(words)}")
        self.loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.WARNING)

    def __exit__(self, *exception: object) -> None:
        self.filters.__exit__(None, None, None)
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
