"""`fullrank evaluate`: a run's backbone, labelled pictures, a protocol."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation import protocol as protocols
from fullrank.evaluation.features import Pictures, choose_device, embed_pictures
from fullrank.evaluation.splits import Part, labelled_parts
from fullrank.files import write_text
from fullrank.runs.folder import Run, plain
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
    data, split, include, captions = chosen_data(run.settings, data, split, include)
    source = open_pictures(data, split, include, captions)
    parts = labelled_parts(source, data, test_split=test_split, include=include, most=MOST, seed=run.settings.seed)
    where = choose_device(device)
    backbone = run.backbone.to(where)
    pixels = Pixels.from_dict(run.input["pixels"])
    features, labels = [], []
    with Progress(console=log_console()) as progress:
        task = progress.add_task("embedding", total=sum(len(part.indices) for part in parts))
        for part in parts:
            pictures = pictures_of(part, pixels, run)
            (values,), kept = embed_pictures(
                pictures, backbone, device=where, progress=lambda count: progress.advance(task, count)
            )
            features.append(values)
            labels.append(torch.from_numpy(part.source.labels[kept]))  # type: ignore[index]
    result = judge(features[0], labels[0], features[1], labels[1]).to_dict()
    result |= {
        "run": str(run.folder),
        "data": source.name,
        "test_data": parts[1].source.name,
        "backbone": run.settings.backbone,
    }
    keep_result(run, result)
    return plain(result)


def chosen_data(
    settings: SimpleNamespace, data: Any, split: str | None, include: str | None
) -> tuple[Any, str | None, str | None, str | None]:
    """Data, split, include and the file of captions, which may name splits: as asked for, or those of the run.

    Raises `InputError` when the run's own were given from Python.
    """
    if data is not None:
        return data, split, include, None
    if settings.data.startswith("<"):
        raise InputError("the run was trained on an array given from Python: add --data to name the pictures")
    return settings.data, split or settings.split, include or settings.include, settings.captions


def pictures_of(part: Part, pixels: Pixels, run: Run) -> Pictures:
    """The pictures of a part as the run's network takes them."""
    check_channels(part.source.name, part.source.read(int(part.indices[0])), pixels)
    return Pictures(part.source, pixels, run.input["image_size"], part.indices)


def check_channels(name: str, image: np.ndarray, pixels: Pixels) -> None:
    """Raises `InputError` for pictures that the network cannot take."""
    if image.shape[-1] != pixels.channels and {image.shape[-1], pixels.channels} - {1, 3, 4}:
        raise InputError(f"{name} has pictures of {image.shape[-1]} channels; the run was trained on {pixels.channels}")


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
