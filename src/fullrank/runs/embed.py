"""`fullrank embed`: the representation of every picture, with its name, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors.numpy

from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.files import write_atomically
from fullrank.runs.evaluate import chosen_data, embed_with_progress, pictures_for
from fullrank.runs.folder import Run

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
    source = open_pictures(**chosen_data(run.settings, data, split, include))
    pictures = pictures_for(Pixels.from_dict(run.input["pixels"]), run.input["image_size"], source)
    vectors, kept = embed_with_progress(run.backbone, pictures, device)
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
