"""Stored embeddings: arrays of vectors from .npy, .npz, .parquet and .safetensors files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fullrank.errors import InputError

KINDS = (".npy", ".npz", ".parquet", ".safetensors")


def read_vectors(path: Path) -> dict[str, np.ndarray]:
    """Every array of vectors (N, d) in a file, by its name there.

    Raises `InputError` for a file that is missing, damaged, carries Python objects or holds no vectors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix not in KINDS:
        raise InputError(f"{path}: give vectors as {', '.join(KINDS)}, a run folder or a .ckpt")
    try:
        arrays = READERS[path.suffix](path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from error
    vectors = {name: array for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiu"}
    if not vectors:
        shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{path} holds no vectors (N, d): found {shapes or 'nothing'}")
    return {name: array.astype(np.float32) if array.dtype.kind != "f" else array for name, array in vectors.items()}


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors.torch

    return {name: tensor.float().numpy() for name, tensor in safetensors.torch.load_file(path).items()}


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Columns of lists become arrays of vectors; otherwise all numeric columns together are one."""
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    kinds, lists, numbers = pyarrow.types, {}, {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if kinds.is_floating(column.type):
            numbers[name] = column.to_numpy(zero_copy_only=False)
        elif any(is_kind(column.type) for is_kind in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)):
            lengths = pyarrow.compute.list_value_length(column).unique()
            if len(lengths) != 1:
                raise InputError(f"column '{name}' holds lists of different lengths: vectors need one width")
            lists[name] = column.flatten().to_numpy().reshape(len(column), -1)
    return lists or ({path.stem: np.stack(list(numbers.values()), axis=1)} if numbers else {})


READERS = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
