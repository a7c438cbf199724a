"""The thin adapter between a method and Lightning. The method knows none of it."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from fullrank.errors import InputError, NotFinite
from fullrank.methods import Batch, Method, Regularizer, Step
from fullrank.networks.small_maps import widen_small_maps
from fullrank.schedules import Progress
from fullrank.training.batches import Batches, Plan, mix
from fullrank.training.feed import Feed
from fullrank.training.optimizer import build_optimizer, optimization_for, set_rates


class Diverged(InputError):
    """The loss stopped being a finite number."""


class Adapter(lightning.LightningModule):
    """Feeds a method, differentiates its loss, and steps the published optimiser and schedule."""

    def __init__(
        self, method: Method, feed: Feed, plan: Plan, settings: Any, start: int = 0, labels: Tensor | None = None
    ) -> None:
        super().__init__()
        widen_small_maps(method)
        self.method = method
        self.feed = feed
        self.plan = plan
        self.settings = settings
        self.start = start
        self.optimization = optimization_for(method.published, settings)
        self.regularizer = Regularizer(**settings.regularize)
        self.labels = labels  # (N,) of the whole set, where they are known
        self.last: Step | None = None

    def train_dataloader(self) -> Any:
        """The rest of the run's batches, for this process."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        return self.feed.loader(Batches(self.plan, start=self.start, rank=rank, world_size=world))

    def on_fit_start(self) -> None:
        """Bring the data that lives on the device there, once."""
        self.feed.to(self.device)

    def training_step(self, batch: Any, number: int) -> Tensor:
        """One batch: seed, views, forward. Every draw depends on the seed and the batch's number alone."""
        torch.manual_seed(mix(self.plan.seed, number, 1))
        try:
            step = self.method(self.views(batch))
            self.last = self.regularizer(step, on_sphere=self.method.on_sphere)
        except NotFinite as error:
            raise Diverged(self.advice(f"{error}")) from error
        if not torch.isfinite(self.last.loss):
            terms = ", ".join(f"{name} {value.item():.4g}" for name, value in self.last.terms.items())
            raise Diverged(self.advice(f"the loss is {self.last.loss.item()} ({terms})"))
        return self.last.loss

    def views(self, batch: Any) -> Batch:
        """Random views in the precision and memory layout of the network."""
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # views are made in float32 whatever the precision of the network
        try:
            made = self.feed.views(batch)
        finally:
            torch.set_default_dtype(default)
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        dtype = next(self.method.parameters()).dtype
        made.views = [to_network(view, dtype, layout) for view in made.views]
        made.progress = self.progress()
        if self.labels is not None:
            made.labels = self.labels[made.index.cpu()].to(self.device)
        return made

    def advice(self, what: str) -> str:
        """What happened at which step, and what to try."""
        remedies = "a lower --learning_rate, a longer --warmup_epochs"
        if self.trainer.precision not in ("32-true", "64-true"):
            remedies += ", --precision 32-true"
        return f"training stopped at step {self.trainer.global_step}: {what}; try {remedies}"

    def progress(self) -> Progress:
        """Where the run is, at the optimiser step that comes next."""
        steps_per_epoch = self.plan.batches_per_epoch / self.settings.accumulate
        return Progress(self.trainer.global_step, self.total_steps, steps_per_epoch)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Gradients are complete and unscaled: the method may clip or freeze."""
        self.method.before_step(self.progress())

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, *arguments: Any, **options: Any) -> None:
        """Set the rates, step, then let the method move what follows the weights."""
        progress = self.progress()
        set_rates(optimizer.optimizer, self.optimization, progress)
        super().optimizer_step(epoch, batch_idx, optimizer, *arguments, **options)
        self.method.after_step(progress)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.method.parameters())

    @property
    def total_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.plan.batches // self.settings.accumulate

    def configure_optimizers(self) -> Any:
        """The optimiser as published, with what the settings change; its rates are set before every step."""
        return build_optimizer(self.method, self.optimization)


def to_network(view: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Images in the precision and memory layout of the network; captions as they are."""
    if not view.is_floating_point():
        return view
    return view.to(dtype=dtype, memory_format=layout if view.ndim == 4 else torch.preserve_format)
