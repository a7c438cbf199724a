"""A set of picture files, whatever holds them: a folder or an archive."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fullrank.data.annotations import Annotations, find_annotations, looks_like_annotations, open_annotations
from fullrank.data.captions import find_captions, looks_like_captions, open_captions
from fullrank.data.decode import STACKS, decode, explain
from fullrank.data.layout import arrange, is_hidden, is_image, suffix
from fullrank.data.masks import drawn
from fullrank.data.objects import Objects
from fullrank.data.sidecar import Files, by_split, take_split
from fullrank.data.source import Looked, Source, UnreadableImage
from fullrank.errors import InputError

HEADERS_READ = 2_000
"""Up to so many TIFF and .npy files, every header is read for frames; beyond, so many spread over the set."""


FOUND = "auto"
"""Annotations are looked for, in place of a file's name."""


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
    Labels and objects come from the folders' names, or from what `annotations` names. Masks are no pictures.

    Attributes:
        ignored: endings of the files that are no pictures, with their numbers.
    """

    def __init__(
        self,
        holder: Files,
        split: str | None = None,
        include: str | None = None,
        captions: str | None = None,
        annotations: str | None = None,
        label_column: str | None = None,
    ) -> None:
        aside = {mask for some in drawn(holder).values() for mask in some} if include is None else set()
        images = [path for path in holder.paths if is_image(path) and path not in aside]
        self.ignored = Counter(suffix(p) or "none" for p in holder.paths if not (is_image(p) or is_hidden(p)))
        if not images:
            raise InputError(f"no pictures in {holder.label}: it holds {_describe(self.ignored)}")
        said = open_captions(captions, holder) if captions is not None else find_captions(holder)
        said = said and said.placed(images, holder.label)
        known = _annotations(holder, annotations, label_column)
        known = known and known.placed(images, holder.label)
        if said:
            self.ignored -= Counter(suffix(path) for path in holder.paths if looks_like_captions(path))
        images, listed = take_split(
            (by_split(said.splits) if said else {}) or (known.splits if known else {}), images, split
        )
        names, labels, classes, chosen = arrange(holder.label, images, None if listed else split, include)
        chosen = listed or chosen
        frames = _count_frames(holder, names)
        self._holder = holder
        self._files = np.repeat(np.arange(len(names)), frames)
        self._paths = names
        self._frames = np.concatenate([np.arange(n) for n in frames]) if frames.max() > 1 else None
        if known:
            labels, classes = None if known.several else known.numbers(names), list(known.classes)
        super().__init__(
            holder.label + (f"[{chosen}]" if chosen else ""),
            [f"{name}#{k}" if n > 1 else name for name, n in zip(names, frames, strict=True) for k in range(n)],
            None if labels is None else labels[self._files],
            classes,
        )
        if said:
            self.captions = [said.sentences.get(names[file], []) for file in self._files]
        if known and known.several:
            self.targets = known.table(names)[self._files]
        if known and known.objects is not None:
            self.objects = Looked([known.objects.get(names[file], Objects) for file in self._files])

    @property
    def beside(self) -> Sequence[str]:
        """The paths of all files, pictures or not."""
        return self._holder.paths

    def digest(self, index: int) -> bytes:
        """Of the file's content, and the number of the picture in it."""
        frame = 0 if self._frames is None else int(self._frames[index])
        try:
            with self._holder.open(self._paths[self._files[index]]) as file:
                return hashlib.blake2b(file.read(), digest_size=16, key=frame.to_bytes(8)).digest()
        except OSError as error:
            raise UnreadableImage(self.names[index], explain(error)) from error

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


def annotation_files(source: Source) -> list[str]:
    """The files beside the pictures that are called like labels or boxes."""
    files = source.origin
    return list(filter(looks_like_annotations, files.beside)) if isinstance(files, ImageFiles) else []


def _annotations(holder: Files, given: str | None, column: str | None) -> Annotations | None:
    if given is None:
        return None
    if given != FOUND:
        return open_annotations(given, holder, column)
    return find_annotations(holder, column)


def _describe(ignored: Counter[str]) -> str:
    if not ignored:
        return "no files at all"
    kinds = ", ".join(kind for kind, _ in ignored.most_common(4))
    return f"{ignored.total()} files ({kinds}), none with an ending such as .jpg, .png, .tif or .npy"


def _count_frames(holder: Files, names: Sequence[str]) -> np.ndarray:
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


def _frames_of(holder: Files, name: str) -> int:
    try:
        with holder.open(name) as file:
            return max(1, STACKS[suffix(name)](file))
    except Exception:  # said with its reason when the picture is read
        return 1
