"""How long a run would take here: a few steps, timed."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from fullrank.data import open_source
from fullrank.data.check import SourceCheck, check_source
from fullrank.methods import Batch, DataFacts
from fullrank.runs.build import build_method
from fullrank.runs.settings import resolve
from fullrank.terminal import log_console
from fullrank.training.prepare import default_image_size
from fullrank.training.speed import choose_speed, keep_freed_memory

TIMED_STEPS = 3
TIMED_BATCH = 32  # images; a step of the real size may not be needed to know the speed


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
    settings = resolve({"data": str(data), "batch_size": batch_size, "epochs": epochs, "backbone": backbone})
    check = check_source(open_source(data, split, include), batch_size=settings.batch_size)
    if check.problems or check.pixels is None or check.count is None:
        return check
    log_console().print("timing a few steps ...", markup=False)
    speed = images_per_second(settings, DataFacts(check.count, 0, default_image_size(check), check.pixels.channels))
    steps = int(settings.epochs * (check.count // settings.batch_size))
    return dataclasses.replace(check, steps=steps, seconds=steps * settings.batch_size / speed)


def images_per_second(settings: Any, facts: DataFacts) -> float:
    """Images a second of forward and backward passes at the chosen settings, views and loading apart."""
    keep_freed_memory()
    choose_speed(settings)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    method, _ = build_method(settings, facts)
    method.to(memory_format=layout)  # type: ignore[call-overload]
    batch = min(TIMED_BATCH, settings.batch_size)
    size = (batch, facts.channels, facts.image_size, facts.image_size)
    views = [torch.randn(size).contiguous(memory_format=layout) for _ in range(2)]
    started = 0.0
    for step in range(TIMED_STEPS + 1):
        if step == 1:  # the first pass warms up
            started = time.monotonic()
        method(Batch(views, torch.arange(batch))).loss.backward()
    return batch * TIMED_STEPS / (time.monotonic() - started)
