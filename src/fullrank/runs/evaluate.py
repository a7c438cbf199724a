"""`fullrank evaluate`: a backbone, labelled pictures, a protocol."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from fullrank.data import Source, open_pictures
from fullrank.data.statistics import Pixels, measure_pixels
from fullrank.errors import InputError, unknown
from fullrank.evaluation.cache import FeatureCache
from fullrank.evaluation.features import Pictures, choose_device, embed_blocks, evaluating
from fullrank.evaluation.model import Model
from fullrank.evaluation.protocol import MULTILABEL, PROTOCOLS, Result
from fullrank.evaluation.splits import Part, is_labelled, labelled_parts
from fullrank.evaluation.taps import Tap
from fullrank.files import plain, unwritable, write_text
from fullrank.machine import hardware, versions
from fullrank.runs.folder import Run
from fullrank.runs.model import open_model
from fullrank.terminal import log_console

# Every picture is used unless the set is larger than this.
MOST = (1_000_000, 200_000)


def evaluate_model(given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `fullrank.evaluate` does; `asked` are its arguments by name."""
    settings = SimpleNamespace(**asked)
    judge = functions_of(settings.protocol)
    options = check_options(settings, list(judge.values()))
    model = open_asked(given, settings)
    parts = open_parts(model, settings)
    function = judge.get("labels" if parts[0].source.targets is None else "targets")
    if function is None:
        raise InputError(f"{settings.protocol} takes one label a picture, and {parts[0].source.name} has several")
    began = time.monotonic()
    features = features_of(model, parts, settings)
    samples = [
        each for part, values in zip(parts, features, strict=True) for each in (values[0], part.answers(values[1]))
    ]
    result: Result = function(*samples, **options)
    record = describe(result, model, parts, settings) | {"seconds": time.monotonic() - began}
    keep_result(model, record, place_of(model, settings.protocol, parts[0].source.name, settings.output))
    return plain(record)


def open_asked(given: Any, settings: SimpleNamespace) -> Model:
    """The network that was asked for."""
    return open_model(given, backbone=settings.backbone, image_size=settings.image_size, pretrained=settings.pretrained)


def check_options(settings: SimpleNamespace, functions: Sequence[Callable[..., Any]]) -> dict[str, Any]:
    """The options of the protocol's own that were given. Raises `InputError` for one that none of `functions` takes."""
    accepted = own_options(functions)
    options = {name: value for name, value in settings.options.items() if value is not None}
    for name in options:
        if name not in accepted:
            raise unknown(f"option of {settings.protocol}", name, accepted)
    return options | ({"seed": settings.seed} if "seed" in accepted else {})


def own_options(functions: Sequence[Callable[..., Any]]) -> dict[str, inspect.Parameter]:
    """The options of a protocol: keyword arguments of its functions."""
    parameters = [each for one in functions for each in inspect.signature(one).parameters.values()]
    return {each.name: each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def functions_of(protocol: str) -> dict[str, Callable[..., Result]]:
    """What judges pictures with one label, and with several. Raises `InputError` for a protocol that is unknown."""
    known = {
        kind: registry.get(protocol)
        for kind, registry in (("labels", PROTOCOLS), ("targets", MULTILABEL))
        if protocol in registry.names()
    }
    return known or {"labels": PROTOCOLS.get(protocol)}


def open_parts(model: Model, settings: SimpleNamespace, *, objects: bool = False) -> tuple[Part, Part]:
    """The pictures to learn from and those to judge on, with their labels or, where `objects`, with what is marked.

    Folders are the labels; where they are none, and for objects, annotations are looked for.
    Raises `InputError` where there are none.
    """
    said = {"annotations": settings.annotations, "label_column": settings.label_column}
    if settings.data is None and model.folder is None:
        raise InputError(f"{model.name} is not a run, which remembers its data: add --data")
    own = Run(model.folder).settings if model.folder else settings
    chosen = chosen_data(own, settings.data, settings.split, settings.include) | said
    source = open_pictures(**chosen)
    if settings.annotations is None and (source.objects is None if objects else not is_labelled(source)):
        chosen["annotations"] = "auto"
        source = open_pictures(**chosen)
    if objects and source.objects is None:
        raise InputError(
            f"{source.name} has no boxes: detection needs COCO's or VOC's format, or masks beside pictures"
        )
    return labelled_parts(source, chosen, test_split=settings.test_split, most=MOST, seed=settings.seed)


def chosen_data(settings: SimpleNamespace, data: Any, split: str | None, include: str | None) -> dict[str, Any]:
    """What `open_pictures` takes: data, split and include as asked for, or those of the run with its captions.

    Raises `InputError` when the run's own were given from Python.
    """
    if data is not None:
        return {"data": data, "split": split, "include": include}
    if settings.data.startswith("<"):
        raise InputError("the run was trained on an array given from Python: add --data to name the pictures")
    own = {"split": split or settings.split, "include": include or settings.include}
    return {"data": settings.data, **own, "captions": settings.captions}


def features_of(model: Model, parts: Sequence[Part], settings: SimpleNamespace) -> list[tuple[Tensor, np.ndarray]]:
    """Features (N, width) of every readable picture of each part, and their positions (N,)."""
    device = choose_device(settings.device)
    pixels = pixels_of(model, parts[0].source)
    tap = Tap(model.backbone, settings.layer, settings.pooling)
    pictures = [pictures_for(pixels, model.image_size, part.source, part.indices) for part in parts]
    transform = {
        "pixels": sorted(pixels.to_dict().items()),
        "image_size": model.image_size,
        "layer": settings.layer,
        "pooling": settings.pooling,
        "precision": settings.precision,
        "architecture": model.architecture,
    }
    cache = FeatureCache(model.weights, transform) if settings.cache else None
    with evaluating(tap.to(device)), computing(settings.precision, device), Progress(console=log_console()) as progress:
        task = progress.add_task("embedding", total=sum(len(part.indices) for part in parts))
        advance = partial(progress.advance, task)
        return [embed_blocks(each, tap, cache, device=device, progress=advance) for each in pictures]


def pixels_of(model: Model, source: Source) -> Pixels:
    """How pictures are scaled for a network: as in its run, or as the set is measured and the network normalises.

    Raises `InputError` for pictures of other channels.
    """
    if model.pixels:
        return Pixels.from_dict(dict(model.pixels))
    measured = measure_pixels(source)
    if measured.channels not in (1, len(model.mean)):
        raise InputError(
            f"{source.name} has pictures of {measured.channels} channels; {model.name} takes {len(model.mean)}"
        )
    wide = len(model.mean)
    low, high = ((values * wide)[:wide] for values in (measured.low, measured.high))
    return Pixels(
        wide, measured.depth, low, high, model.mean, model.std, f"that of {model.name}", None, measured.sampled
    )


@contextlib.contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """In float32, or in bfloat16 where the hardware is quicker with it."""
    if precision not in ("32", "bf16"):
        raise unknown("precision", precision, ("32", "bf16"))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def pictures_for(pixels: Pixels, image_size: int, source: Source, indices: np.ndarray | None = None) -> Pictures:
    """Pictures of a source as a network takes them.

    Raises `InputError` for pictures of other channels than the network was trained on.
    """
    found = source.read(0 if indices is None else int(indices[0])).shape[-1]
    if found != pixels.channels and {found, pixels.channels} - {1, 3, 4}:
        raise InputError(f"{source.name} has pictures of {found} channels; the network takes {pixels.channels}")
    return Pictures(source, pixels, image_size, indices)


def embed_with_progress(backbone: nn.Module, pictures: Pictures, device: str) -> tuple[Tensor, np.ndarray]:
    """The representation (n, width) of every readable picture, and their positions (n,)."""
    where = choose_device(device)
    with Progress(console=log_console()) as progress:
        task = progress.add_task("embedding", total=len(pictures.indices))
        advance = partial(progress.advance, task)
        return embed_blocks(pictures, backbone.to(where), None, device=where, progress=advance)


def describe(result: Result, model: Model, parts: Sequence[Part], settings: SimpleNamespace) -> dict[str, Any]:
    """A result with all that it depends on, its classes by their names."""
    classes, given = parts[0].source.classes, result.to_dict()
    names = {place: classes[int(place)] for place in result.by_class if int(place) < len(classes)}
    return given | {
        "by_class": {names.get(place, place): score for place, score in result.by_class.items()},
        "model": model.name,
        "backbone": model.architecture,
        "weights": model.weights,
        "data": parts[0].source.name,
        "test_data": parts[1].source.name,
        "layer": settings.layer,
        "image_size": model.image_size,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "hardware": hardware(choose_device(settings.device)),
    }


def place_of(model: Model, protocol: str, data: str, output: str | None) -> Path:
    """The result's file: in `output`, a run's folder, or evaluations/MODEL; the folder is made."""
    folder = Path(output) if output else (model.folder or Path()) / "evaluations"
    if model.folder is None and output is None:
        folder /= slug(Path(model.name).name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder / f"{protocol}-{slug(data)}.json"


def slug(name: str) -> str:
    """Letters, digits and single hyphens."""
    return re.sub(r"\W+", "-", name).strip("-")


def keep_result(model: Model, record: dict[str, Any], place: Path) -> None:
    """Write the result, of a run also into its summary, from which the report shows it."""
    write_text(place, json.dumps(plain(record), indent=1) + "\n")
    if model.folder is None:
        return
    run = Run(model.folder)
    summary = run.summary
    this = (record["protocol"], record["data"])
    others = [each for each in summary.get("evaluations", []) if (each["protocol"], each["data"]) != this]
    run.write_summary(summary | {"evaluations": [*others, record]})
    if (run.folder / "diagnostics.npz").exists():
        from fullrank.report import build_report

        build_report(run.folder)
