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
from fullrank.data.files import FOUND, annotation_files
from fullrank.data.statistics import Pixels, measure_pixels
from fullrank.errors import InputError, unknown
from fullrank.evaluation.cache import FeatureCache, Memory, usual_folder
from fullrank.evaluation.features import Pictures, choose_device, embed_blocks, evaluating
from fullrank.evaluation.model import Model
from fullrank.evaluation.protocol import MULTILABEL, PROTOCOLS, Result
from fullrank.evaluation.repeated import over_seeds
from fullrank.evaluation.splits import Part, is_labelled, labelled_parts, labelled_positions
from fullrank.evaluation.taps import Tap
from fullrank.files import plain, unwritable, write_text
from fullrank.machine import hardware, versions
from fullrank.runs.folder import Run
from fullrank.runs.model import open_model
from fullrank.terminal import log_console

# Every picture is used unless the set is larger than this.
MOST = (1_000_000, 200_000)
LOOKED = 20  # pictures that are tried for the number of channels


def evaluate_model(given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `fullrank.evaluate` does; `asked` are its arguments by name."""
    settings = SimpleNamespace(**asked)
    judge = functions_of(settings.protocol)
    options = check_options(settings, list(judge.values()))
    if settings.seeds > 1 and "seed" not in options:
        raise InputError(f"{settings.protocol} gives the same numbers for every seed: leave out --seeds")
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
    if settings.cache and "memory" in inspect.signature(function).parameters:
        options["memory"] = Memory(usual_folder() / settings.protocol)

    def once(seed: int) -> Result:
        return function(*samples, **options | ({"seed": seed} if "seed" in options else {}))

    result = over_seeds(once, settings.seed, settings.seeds)
    record = describe(result, model, parts, settings) | {"seconds": time.monotonic() - began}
    keep_result(model, record, place_of(model, settings, parts[0].source.name))
    return plain(record)


def open_asked(given: Any, settings: SimpleNamespace) -> Model:
    """The network that was asked for."""
    own = {"backbone": settings.backbone, "image_size": settings.image_size, "pretrained": settings.pretrained}
    return open_model(given, **own, seed=settings.seed)


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
    source, chosen = open_known(chosen, objects=objects)
    if objects and source.objects is None:
        raise InputError(
            f"{source.name} has no boxes: detection needs COCO's or VOC's format, or masks beside pictures"
        )
    return labelled_parts(source, chosen, test_split=settings.test_split, most=MOST, seed=settings.seed)


def open_known(chosen: dict[str, Any], *, objects: bool) -> tuple[Source, dict[str, Any]]:
    """The pictures with what is known of them, and what `open_pictures` takes for that.

    Annotations are looked for where folders are no labels or only number parts of the set, where a split is one that
    files alone name, and for objects.
    """
    if chosen["annotations"] is not None:
        return open_pictures(**chosen), chosen
    found, looked = chosen | {"annotations": FOUND}, None
    try:
        looked = open_pictures(**chosen)
    except InputError:
        if chosen["split"] is None:
            raise
    if looked is None:
        return open_pictures(**found), found
    if looked.objects is None if objects else (not is_labelled(looked) or are_numbered(looked.classes)):
        return open_pictures(**found), found
    passed_over = annotation_files(looked)
    if passed_over and not objects:
        log_console().print(
            f"labels: the folders' names; {passed_over[0]} is passed over: --annotations auto takes it", markup=False
        )
    return looked, chosen


def are_numbered(classes: Sequence[str]) -> bool:
    """Whether folders only number the parts of a set, such as images_001 and images_002."""
    stems = {re.sub(r"[-_ ]?\d+$", "", name) for name in classes}
    return len(classes) > 1 and len(stems) == 1 and stems != {""} and not stems & set(classes)


def chosen_data(settings: SimpleNamespace, data: Any, split: str | None, include: str | None) -> dict[str, Any]:
    """What `open_pictures` takes: data, split and include as asked for, or those of the run with its captions.

    Raises `InputError` when the run's own were given from Python.
    """
    if data is not None:
        return {"data": data, "split": split, "include": include}
    if settings.data.startswith("<"):
        raise InputError("the run was trained on an array given from Python: add --data to name the pictures")
    own = {"split": split or settings.split, "include": include or settings.include}
    return {"data": settings.data, **own, "captions": settings.captions, "samples": settings.samples}


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
        try:
            return [embed_blocks(each, tap, cache, device=device, progress=advance) for each in pictures]
        finally:
            tap.close()


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


def check_precision(precision: str) -> None:
    """Raises `InputError` for one that is not known."""
    if precision not in ("32", "bf16"):
        raise unknown("precision", precision, ("32", "bf16"))


@contextlib.contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """In float32, or in bfloat16 where the hardware is quicker with it."""
    check_precision(precision)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def pictures_for(pixels: Pixels, image_size: int, source: Source, indices: np.ndarray | None = None) -> Pictures:
    """Pictures of a source as a network takes them.

    Raises `InputError` for pictures of other channels than the network was trained on.
    """
    found = _channels(source, np.arange(len(source)) if indices is None else indices)
    if found is not None and found != pixels.channels and {found, pixels.channels} - {1, 3, 4}:
        raise InputError(f"{source.name} has pictures of {found} channels; the network takes {pixels.channels}")
    return Pictures(source, pixels, image_size, indices)


def _channels(source: Source, indices: np.ndarray) -> int | None:
    """Of the first picture that can be read, among a few."""
    for index in indices[:LOOKED]:
        with contextlib.suppress(InputError):
            return source.read(int(index)).shape[-1]
    return None


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
    names = dict(zip(map(str, range(len(classes))), classes, strict=True))
    unknown_labels = {each.source.name: left_out(each.source) for each in parts}
    given["notes"] += [f"{count:,} pictures of {name} have no label" for name, count in unknown_labels.items() if count]
    return given | {
        "by_class": {names.get(place, place): score for place, score in result.by_class.items()},
        "model": model.name,
        "backbone": model.architecture,
        "weights": model.weights,
        "data": parts[0].source.name,
        "test_data": parts[1].source.name,
        "variant": variant_of(settings),
        "layer": settings.layer,
        "image_size": model.image_size,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "hardware": hardware(choose_device(settings.device)),
    }


def left_out(source: Source) -> int:
    """How many pictures have no label, of a source that has some."""
    return len(source) - len(labelled_positions(source)) if is_labelled(source) else 0


def variant_of(settings: SimpleNamespace) -> str:
    """What sets a result apart from others of its protocol on the same data, such as `1percent`; mostly nothing."""
    own, words = settings.options, []
    if own.get("percent") is not None:
        words.append(f"{own['percent']:g}percent")
    words += [Path(own["subset"]).stem] if own.get("subset") else []
    words += [str(own[name]) for name in ("schedule", "recipe", "detector") if own.get(name) not in (None, "quick")]
    words += [str(settings.layer)] if settings.layer else []
    words += [settings.pooling] if settings.pooling != "auto" else []
    return "-".join(map(slug, words))


def place_of(model: Model, settings: SimpleNamespace, data: str) -> Path:
    """The result's file: in `output`, a run's folder, or evaluations/MODEL; the folder is made."""
    folder = Path(settings.output) if settings.output else (model.folder or Path()) / "evaluations"
    if model.folder is None and settings.output is None:
        folder /= slug(Path(model.name).name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder / f"{'-'.join(filter(None, [settings.protocol, variant_of(settings), slug(data)]))}.json"


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
    this = {name: record.get(name, "") for name in ("protocol", "variant", "data")}
    others = [each for each in summary.get("evaluations", []) if {name: each.get(name, "") for name in this} != this]
    run.write_summary(summary | {"evaluations": [*others, record]})
    if (run.folder / "diagnostics.npz").exists():
        from fullrank.report import build_report

        build_report(run.folder)
