"""`fullrank evaluate --protocol retrieval`: captions for images and images for captions, by a run that saw both."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import normalize

from fullrank.data import Source, open_pictures
from fullrank.data.source import Chosen
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation.cache import FeatureCache
from fullrank.evaluation.features import choose_device, embed_blocks, evaluating
from fullrank.evaluation.model import Model, digest_of
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.retrieval import Measure, retrieval
from fullrank.evaluation.splits import TEST_NAMES, Part
from fullrank.files import plain
from fullrank.runs.evaluate import check_options, chosen_data, computing, describe, keep_result, pictures_for, place_of
from fullrank.runs.folder import CONFIG, Run
from fullrank.terminal import log_console


def matched(images: Tensor, captions: Tensor, owners: Tensor, *, folds: int = 1, measure: Measure = "cosine") -> Result:
    """Recalls and ranks as `retrieval` gives them.

    Args:
        images: one embedding an image.
        captions: one a caption.
        owners: the image of each caption.
        folds: equal parts of the images, each judged by itself, then averaged; 5 of 1,000 on COCO.
        measure: cosine, or order (of embeddings without negative entries).
    """
    if measure == "cosine":
        images, captions = normalize(images, dim=1), normalize(captions, dim=1)
    figures = retrieval(images, captions, owners, measure=measure, folds=folds)
    quoted = {name: value for name, value in figures.items() if "_r" in name or name == "rsum"}
    return Result(
        protocol="retrieval",
        scores=quoted,
        n_train=0,
        n_test=len(images),
        classes=0,
        settings={"folds": folds, "measure": measure, "captions": len(captions)},
        details={"all": figures},
    )


def evaluate_retrieval(given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `fullrank.evaluate` does with this protocol; `asked` are its arguments by name."""
    settings = SimpleNamespace(**asked)
    options = check_options(settings, [matched])
    if settings.layer or settings.pooling != "auto":
        raise InputError("retrieval compares embeddings: leave out --layer and --pooling")
    if settings.seeds > 1:
        raise InputError("retrieval gives the same numbers for every seed: leave out --seeds")
    if not isinstance(given, Run) and not is_run(given):
        raise InputError(f"retrieval needs a run that was trained on images and captions; {given} is none")
    run = given if isinstance(given, Run) else Run(given)
    source = judged_part(run, settings)
    sentences = [sentence for each in source.captions for sentence in each]  # type: ignore[union-attr]
    owners = torch.repeat_interleave(torch.tensor([len(each) for each in source.captions]))  # type: ignore[union-attr]
    began = time.monotonic()
    captions = run.embed_captions(sentences)[1]
    images, kept = embed_images(run, source, settings)
    if len(kept) < len(source):
        raise InputError(
            f"{len(source) - len(kept)} pictures of {source.name} cannot be read: `fullrank check` says why"
        )
    own = getattr(run.method, "options", {}).get("measure", "cosine")
    result = matched(images, captions, owners, **{"measure": own, **options})
    if settings.data is None and source.name == open_pictures(**chosen_data(run.settings, None, None, None)).name:
        result = replace(result, notes=("these are the pictures that the run was trained on",))
    model = Model(str(run.folder), run.method, run.settings.backbone, run.input["image_size"], folder=run.folder)
    parts = (Part(source, kept), Part(source, kept))
    record = describe(result, model, parts, settings) | {"seconds": time.monotonic() - began}
    keep_result(model, record, place_of(model, settings, source.name))
    return plain(record)


def is_run(given: Any) -> bool:
    """Whether a path is the folder of a run."""
    return (Path(given) / CONFIG).is_file()


def judged_part(run: Run, settings: SimpleNamespace) -> Source:
    """The pictures with captions that are judged: the split that was asked for, or the data's own test part.

    Raises `InputError` where none has captions.
    """
    opened = chosen_data(run.settings, settings.data, None, settings.include)
    asked = settings.test_split or settings.split
    source = _first_part(opened, (asked,) if asked else TEST_NAMES)
    if source.captions is None or not any(source.captions):
        raise InputError(f"{source.name} has no captions: name their file when training, or put captions.jsonl beside")
    having = np.flatnonzero([bool(each) for each in source.captions])
    return source if len(having) == len(source) else Chosen(source, having)


def _first_part(opened: Mapping[str, Any], names: tuple[str, ...]) -> Source:
    for name in names:
        try:
            return open_pictures(**{**opened, "split": name})
        except InputError:
            if len(names) == 1:
                raise
    return open_pictures(**{**opened, "split": None})


def embed_images(run: Run, source: Source, settings: SimpleNamespace) -> tuple[Tensor, np.ndarray]:
    """Embeddings Z (N, width) of every readable picture, and their positions (N,)."""
    device, method, pixels = choose_device(settings.device), run.method, Pixels.from_dict(run.input["pixels"])
    size = run.input["image_size"]
    pictures = pictures_for(pixels, size, source)
    transform = {"pixels": sorted(pixels.to_dict().items()), "image_size": size, "precision": settings.precision}
    cache = FeatureCache(digest_of(method), transform | {"output": "Z"}) if settings.cache else None
    with evaluating(method.to(device)), computing(settings.precision, device), Progress(console=log_console()) as bar:
        advance = partial(bar.advance, bar.add_task("embedding", total=len(source)))
        return embed_blocks(pictures, lambda images: method.embed(images)[1], cache, device=device, progress=advance)
