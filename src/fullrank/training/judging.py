"""`fullrank evaluate` by protocols that train the network too: fine-tuning, detection and segmentation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.progress import track

from fullrank.errors import InputError
from fullrank.evaluation.repeated import over_seeds
from fullrank.files import plain
from fullrank.runs.evaluate import (
    check_options,
    check_precision,
    describe,
    keep_result,
    open_asked,
    open_parts,
    pixels_of,
    place_of,
)
from fullrank.terminal import log_console
from fullrank.training import detect, finetune  # noqa: F401 - they register themselves
from fullrank.training.probe import linear_as_published
from fullrank.training.task import TRAINED, Task


def evaluate_by_training(given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `fullrank.evaluate` does with these protocols; `asked` are its arguments by name."""
    settings, console = SimpleNamespace(**asked), log_console()
    function = TRAINED.get(settings.protocol)
    options = check_options(settings, [function])
    if (settings.layer or settings.pooling != "auto") and function is not linear_as_published:
        raise InputError(f"{settings.protocol} trains the whole network: leave out --layer and --pooling")
    check_precision(settings.precision)
    model = open_asked(given, settings)
    objects = settings.protocol == "detection"
    train, test = open_parts(model, settings, objects=objects)
    for part in () if objects else (train, test):
        if not part.has_answers:
            raise InputError(f"nothing is known to be in the {len(part.indices):,} pictures of {part.source.name}")
    fabric = launch(settings)
    place = place_of(model, settings, train.source.name)
    task = Task(
        model,
        pixels_of(model, train.source),
        train,
        test,
        fabric,
        workers=settings.workers,
        checkpoint=place.with_suffix(".ckpt"),
        say=lambda words: console.print(words, markup=False) if fabric.is_global_zero else None,
        track=lambda items, total, words: track(
            items, words, total, console=console, disable=not fabric.is_global_zero
        ),
        layer=settings.layer,
        pooling=settings.pooling,
        precision=settings.precision,
    )
    began = time.monotonic()
    result = over_seeds(lambda seed: function(task, **options | {"seed": seed}), settings.seed, settings.seeds)
    record = describe(result, model, (train, test), settings) | {"seconds": time.monotonic() - began}
    if fabric.is_global_zero:
        keep_result(model, record, place)
        place.with_suffix(".ckpt").unlink(missing_ok=True)
    return plain(record)


def launch(settings: SimpleNamespace) -> lightning.Fabric:
    """The devices that were asked for. Raises `InputError` where there are none such."""
    kind = {"cpu": "cpu", "auto": "auto"}.get(settings.device, "cuda" if "cuda" in settings.device else settings.device)
    try:
        fabric = lightning.Fabric(accelerator=kind, devices=settings.devices)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(f"devices {settings.devices} of kind {kind}: {' '.join(str(error).split())}") from error
    fabric.launch()
    return fabric
