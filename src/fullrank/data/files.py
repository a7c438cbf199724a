"""A set of picture files, whatever holds them: a folder or an archive."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from fullrank.data.captions import find_captions, looks_like_captions, open_captions
from fullrank.data.decode import STACKS, decode, explain
from fullrank.data.layout import arrange, is_hidden, is_image, suffix
from fullrank.data.source import Source, UnreadableImage
from fullrank.errors import InputError

HEADERS_READ = 2_000
"""Up to so many TIFF and .npy files, every header is read for frames; beyond, so many spread over the set."""


class Holder(Protocol):
    """What holds files: lists them once, then opens any of them, in any process or thread."""

    label: str
    paths: Sequence[str]

    def open(self, path: str) -> BinaryIO:
        """The file's content from its start."""


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


class ImageFiles(Source):
    """Pictures in files.  A stack (TIFF frames, 4-D .npy) counts as its pictures, named `file.tif#0` and on.

    Captions come from the file that `captions` names, else from files beside the pictures that are called like it.

    Attributes:
        ignored: endings of the files that are no pictures, with their numbers.
    """

    def __init__(
        self, holder: Holder, split: str | None = None, include: str | None = None, captions: str | None = None
    ) -> None:
        images = [path for path in holder.paths if is_image(path)]
        self.ignored = Counter(suffix(p) or "none" for p in holder.paths if not (is_image(p) or is_hidden(p)))
        if not images:
            raise InputError(f"no pictures in {holder.label}: it holds {_describe(self.ignored)}")
        said = open_captions(captions, holder) if captions is not None else find_captions(holder)
        by_captions = None
        if said:
            said = said.placed(images, holder.label)
            images, by_captions = said.split(images, split)
            self.ignored -= Counter(suffix(path) for path in holder.paths if looks_like_captions(path))
        names, labels, classes, chosen = arrange(holder.label, images, None if by_captions else split, include)
        chosen = by_captions or chosen
        frames = _count_frames(holder, names)
        self._holder = holder
        self._files = np.repeat(np.arange(len(names)), frames)
        self._paths = names
        self._frames = np.concatenate([np.arange(n) for n in frames]) if frames.max() > 1 else None
        super().__init__(
            holder.label + (f"[{chosen}]" if chosen else ""),
            [f"{name}#{k}" if n > 1 else name for name, n in zip(names, frames, strict=True) for k in range(n)],
            None if labels is None else labels[self._files],
            classes,
        )
        if said:
            self.captions = [said.sentences.get(names[file], []) for file in self._files]

    def read(self, index: int) -> np.ndarray:
        """(H, W, C); see `decode`."""
        return self.look(index)[0]

    def look(self, index: int) -> tuple[np.ndarray, str]:
        """The picture, and the mode that its file has."""
        frame = 0 if self._frames is None else int(self._frames[index])
        try:
            with self._holder.open(self._paths[self._files[index]]) as file:
                return decode(file, frame)
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise UnreadableImage(self.names[index], explain(error)) from error


def _describe(ignored: Counter[str]) -> str:
    if not ignored:
        return "no files at all"
    kinds = ", ".join(kind for kind, _ in ignored.most_common(4))
    return f"{ignored.total()} files ({kinds}), none with an ending such as .jpg, .png, .tif or .npy"


def _count_frames(holder: Holder, names: Sequence[str]) -> np.ndarray:
    """How many pictures each file holds.  Unreadable files count as one, which fails when it is read."""
    frames = np.ones(len(names), dtype=np.int64)
    stackable = np.array([i for i, name in enumerate(names) if suffix(name) in STACKS], dtype=np.int64)
    step = -(-len(stackable) // HEADERS_READ) or 1
    for i in stackable[::step]:
        frames[i] = _frames_of(holder, names[i])
    if step > 1 and frames.max() > 1:
        for i in np.setdiff1d(stackable, stackable[::step]):
            frames[i] = _frames_of(holder, names[i])
    return frames


def _frames_of(holder: Holder, name: str) -> int:
    try:
        with holder.open(name) as file:
            return max(1, STACKS[suffix(name)](file))
    except Exception:  # said with its reason when the picture is read
        return 1
