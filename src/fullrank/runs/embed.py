"""`fullrank embed`: the representation of every picture, with its name, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors.numpy
from rich.progress import Progress

from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation.features import Pictures, choose_device, embed_pictures
from fullrank.files import write_atomically
from fullrank.runs.evaluate import check_channels, chosen_data
from fullrank.runs.folder import Run
from fullrank.terminal import log_console

KINDS = (".parquet", ".npy", ".npz", ".safetensors")


def embed_run(
    run: str | Path | Run, *, data: Any, split: str | None, include: str | None, out: Path, device: str
) -> Path:
    """What `fullrank.embed` does."""
    run = run if isinstance(run, Run) else Run(run)
    if out.suffix not in KINDS:
        raise InputError(f"cannot write {out}: give a name that ends in {', '.join(KINDS)}")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: {out.parent} is no folder")
    source = open_pictures(*chosen_data(run.settings, data, split, include))
    pixels = Pixels.from_dict(run.input["pixels"])
    where = choose_device(device)
    pictures = Pictures(source, pixels, run.input["image_size"])
    check_channels(source.name, source.read(0), pixels)
    with Progress(console=log_console()) as progress:
        task = progress.add_task("embedding", total=len(source))
        (vectors,), kept = embed_pictures(
            pictures,
            run.backbone.to(where),
            device=where,
            progress=lambda count: progress.advance(task, count),
        )
    names = [str(source.names[position]) for position in kept]
    labels = None if source.labels is None else [source.classes[label] for label in source.labels[kept]]
    write_vectors(out, vectors.numpy(), names, labels)
    return out


def write_vectors(out: Path, vectors: np.ndarray, names: list[str], labels: list[str] | None) -> None:
    """Vectors (N, d) float32 beside their names; .npy holds the vectors alone."""
    if out.suffix == ".parquet":
        values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
        columns = {"name": names, "vector": values} | ({"label": labels} if labels else {})
        table = pyarrow.table(columns)
        write_atomically(out, lambda file: pyarrow.parquet.write_table(table, file))
    elif out.suffix == ".npy":
        write_atomically(out, lambda file: np.save(file, vectors))
    elif out.suffix == ".npz":
        arrays: dict[str, Any] = {"vectors": vectors, "names": np.array(names)}
        arrays |= {"labels": np.array(labels)} if labels else {}
        write_atomically(out, lambda file: np.savez(file, **arrays))
    else:
        content = safetensors.numpy.save({"vectors": vectors}, metadata={"names": "\n".join(names)})
        write_atomically(out, lambda file: file.write(content))
