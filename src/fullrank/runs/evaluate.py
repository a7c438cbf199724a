"""`fullrank evaluate`: a run's backbone, labelled pictures, a protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from fullrank.data import Source, open_pictures
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation import protocol as protocols
from fullrank.evaluation.features import Pictures, choose_device, embed_pictures
from fullrank.evaluation.splits import labelled_parts
from fullrank.files import plain, write_text
from fullrank.runs.folder import Run
from fullrank.terminal import log_console

# Every picture is used unless the set is larger than this.
MOST = (1_000_000, 200_000)


def evaluate_run(
    run: str | Path | Run,
    *,
    protocol: str,
    data: Any,
    split: str | None,
    test_split: str | None,
    include: str | None,
    device: str,
) -> dict[str, Any]:
    """What `fullrank.evaluate` does."""
    run = run if isinstance(run, Run) else Run(run)
    judge = protocols.PROTOCOLS.get(protocol)
    chosen = chosen_data(run.settings, data, split, include)
    source, include, seed = open_pictures(**chosen), chosen["include"], run.settings.seed
    parts = labelled_parts(source, chosen["data"], test_split=test_split, include=include, most=MOST, seed=seed)
    pictures = [pictures_for(run.input, part.source, part.indices) for part in parts]
    embedded = embed_with_progress(run.backbone, pictures, device)
    samples: list[Tensor] = []  # features and labels to learn from, then those to be judged on
    for part, (values, kept) in zip(parts, embedded, strict=True):
        samples += [values, torch.from_numpy(part.source.labels[kept])]  # type: ignore[index]
    result = judge(*samples).to_dict()
    result |= {"run": str(run.folder), "data": source.name, "test_data": parts[1].source.name}
    result |= {"backbone": run.settings.backbone}
    keep_result(run, result)
    return plain(result)


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


def pictures_for(taken: Mapping[str, Any], source: Source, indices: np.ndarray | None = None) -> Pictures:
    """Pictures of a source as a network takes them, which `taken` describes.

    Raises `InputError` for pictures of other channels than the network was trained on.
    """
    pixels = Pixels.from_dict(taken["pixels"])
    found = source.read(0 if indices is None else int(indices[0])).shape[-1]
    if found != pixels.channels and {found, pixels.channels} - {1, 3, 4}:
        raise InputError(f"{source.name} has pictures of {found} channels; the run was trained on {pixels.channels}")
    return Pictures(source, pixels, taken["image_size"], indices)


def embed_with_progress(backbone: nn.Module, parts: Sequence[Pictures], device: str) -> list[tuple[Tensor, np.ndarray]]:
    """The representation (n, width) of every readable picture of each part, and their positions (n,)."""
    where, embedded = choose_device(device), []
    with Progress(console=log_console()) as progress:
        task = progress.add_task("embedding", total=sum(len(part.indices) for part in parts))
        for part in parts:
            advance = partial(progress.advance, task)
            (values,), kept = embed_pictures(part, backbone.to(where), device=where, progress=advance)
            embedded.append((values, kept))
    return embedded


def keep_result(run: Run, result: dict[str, Any]) -> None:
    """Write the result into the run's folder, where the report finds it."""
    folder = run.folder / "evaluations"
    folder.mkdir(exist_ok=True)
    data = re.sub(r"\W+", "-", Path(str(result["data"])).name).strip("-")
    write_text(folder / f"{result['protocol']}-{data}.json", json.dumps(plain(result), indent=1) + "\n")
    summary = run.summary
    others = [
        each
        for each in summary.get("evaluations", [])
        if (each["protocol"], each["data"]) != (result["protocol"], result["data"])
    ]
    run.write_summary(summary | {"evaluations": [*others, result]})
    if (run.folder / "diagnostics.npz").exists():
        from fullrank.report import build_report

        build_report(run.folder)
