"""A folder of pictures, of any depth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from fullrank.errors import InputError


class Folder:
    """All files below a folder; links to folders are followed once."""

    def __init__(self, root: Path) -> None:
        self.label = f"{root.name or root}/"
        self._root = root
        try:
            self.paths: Sequence[str] = sorted(_walk(root))
        except OSError as error:
            raise InputError(f"cannot read the folder '{error.filename}': {error.strerror}") from error

    def open(self, path: str) -> BinaryIO:
        """A file's content."""
        return open(self._root / path, "rb")


def _walk(root: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise error

    paths: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        inside = Path(folder).relative_to(root).as_posix()
        paths += files if inside == "." else [f"{inside}/{name}" for name in files]
    return paths
