"""Features on the disk, kept under what they follow from: weights, pictures and transform. They cannot be stale.

A block's key is a digest of the network's weights, of how pictures are brought to it, and of every picture's content.
So a changed picture or weight has another key, and a stopped evaluation goes on with the first block that is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fullrank.errors import InputError
from fullrank.files import write_atomically, write_text

BLOCK = 4096  # pictures that are kept together
ROOT = Path("~/.cache/fullrank/features")


def usual_folder() -> Path:
    """`FULLRANK_CACHE` in the environment, or `~/.cache/fullrank/features`."""
    return Path(os.environ.get("FULLRANK_CACHE", ROOT)).expanduser()


class Memory:
    """Results of parts of a protocol, by what they follow from, so that a stopped protocol goes on.

    Args:
        folder: where they lie; None remembers nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def __call__(self, key: str, make: Callable[[], list[float]]) -> list[float]:
        """What `make` gives, or gave for this key. A disk that cannot take it costs time later, nothing else."""
        if self.folder is None:
            return make()
        path = self.folder / f"{key}.json"
        try:
            return list(map(float, json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # not there, or damaged by other hands
            found = make()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(found))
        except (OSError, InputError):
            pass
        return found


class FeatureCache:
    """Stored blocks of features.

    Args:
        weights: digest of the network's weights.
        transform: all else that features follow from, as plain values: layer, pooling, size, scaling, precision.
        folder: where blocks lie; see `usual_folder`.
    """

    def __init__(self, weights: str, transform: dict[str, Any], folder: Path | None = None) -> None:
        self.folder = folder or usual_folder()
        self._network = f"{weights} {sorted(transform.items())}".encode()

    def key(self, contents: list[bytes]) -> str:
        """Of a block, from the digest of each of its pictures."""
        return hashlib.blake2b(b"".join([self._network, *contents]), digest_size=20).hexdigest()

    def load(self, key: str) -> tuple[Tensor, Tensor] | None:
        """The features of a block, (n, width), and which of its pictures they are of, (n,); or None."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            found = safetensors.torch.load_file(path)
            return found["features"], found["kept"]
        except (safetensors.SafetensorError, KeyError):  # damaged by other hands: made anew
            return None

    def store(self, key: str, features: Tensor, kept: Tensor) -> None:
        """Keep a block. A disk that cannot take it costs time later, nothing else."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = safetensors.torch.save({"features": features.contiguous(), "kept": kept})
            write_atomically(path, lambda file: file.write(content))
        except (OSError, InputError):
            return

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
