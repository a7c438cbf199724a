"""Where samples come from: `open_source` takes everything that `--data` takes."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fullrank.data.source import Chosen, Source, UnreadableImage
from fullrank.errors import InputError, unknown

if TYPE_CHECKING:
    from fullrank.data.streams import Stream

__all__ = ["Source", "UnreadableImage", "open_pictures", "open_source", "some_of"]

NAMES = ("shapes", "digits")
FROM_STREAM = 2 << 30
"""Bytes of encoded pictures that are held of a stream where pictures are read at random: the same in every process."""
PREFIXES = ("torchvision", "hf", "wds")
KINDS = "a folder, .zip, .tar, .tar.gz, .tar.xz, .npy, .npz, shapes, digits, torchvision:NAME, hf:NAME or wds:SHARDS"


def open_source(
    data: str | Path | np.ndarray | torch.Tensor | Source | Stream,
    split: str | None = None,
    include: str | None = None,
    captions: str | None = None,
    annotations: str | None = None,
    label_column: str | None = None,
    samples: int | None = None,
) -> Source | Stream:
    """The pictures behind `data`, opened and listed but not read.

    Args:
        data: a folder; a .zip, .tar, .tar.gz or .tar.xz archive, read where it is; a .npy or .npz file; an
            array or tensor of pictures; `shapes`, `digits`, `torchvision:NAME[@root]`; `hf:NAME` and
            `wds:SHARDS` or `shards-{000..010}.tar`, which are streams.  A folder that is called like a
            named set is written `./digits`.
        split: a folder of the set such as `train` or `test`, or a split that the named set has.  A set with
            train/ beside other splits gives train.
        include: a pattern such as `*.tif` that the path of a picture must match (folders and archives).
        captions: a file of captions, on the disk or inside the folder or archive; one that is called like it is found
            by itself there. In other sets, its pictures are numbers from 0.
        annotations: a file of labels, boxes or masks, on the disk or inside the folder or archive; `auto` looks for
            them there. Without it the folders are the labels.
        label_column: of a table of labels.
        samples: so many of the pictures, always the same; more hold those that fewer do. Of a stream, the first.

    Raises:
        InputError: the data is missing, empty, damaged or of an unknown kind; one line says what to do.
    """
    opened = _open_whole(data, split, include, captions, annotations, label_column)
    return opened if samples is None else some_of(opened, samples)


def some_of(opened: Source | Stream, samples: int) -> Source:
    """So many of the pictures in their order, drawn once for all; of a stream the first."""
    if not isinstance(opened, Source):
        return opened.first(samples, FROM_STREAM)
    if samples >= len(opened):
        return opened
    return Chosen(opened, np.sort(np.random.default_rng(0).permutation(len(opened))[:samples]))


def _open_whole(
    data: str | Path | np.ndarray | torch.Tensor | Source | Stream,
    split: str | None,
    include: str | None,
    captions: str | None,
    annotations: str | None,
    label_column: str | None,
) -> Source | Stream:
    if isinstance(data, (np.ndarray, torch.Tensor)):
        from fullrank.data.arrays import Arrays

        data = Arrays(data)
    if not isinstance(data, (str, Path)):
        if split is not None or include is not None:
            raise InputError(f"split and include choose among files; {type(data).__name__} data has none")
        return _captioned(data, captions)
    named = _open_named(str(data), split)
    if named is not None:
        source = _captioned(named, captions)
        if annotations not in (None, "auto"):
            raise InputError(f"annotations are those of a folder or an archive; {data} is neither")
    else:
        source = _open_path(str(data), split, include, captions, annotations, label_column)
    if include is not None and not hasattr(source, "ignored"):
        raise InputError(f"include chooses files of a folder or an archive; {data} is neither")
    return source


def open_pictures(
    data: Any, split: str | None = None, include: str | None = None, *, most: int | None = None, **said: Any
) -> Source:
    """As `open_source`, for those who read at random: of a stream `most` pictures, or what `FROM_STREAM` holds."""
    opened = open_source(data, split, include, **said)
    return opened if isinstance(opened, Source) else opened.first(most, FROM_STREAM)


def _captioned(source: Source | Stream, captions: str | None) -> Source | Stream:
    """A set without files of its own, with the captions of a file on the disk."""
    if captions is not None:
        from fullrank.data.captions import open_captions

        if not isinstance(source, Source):
            raise InputError(f"{source.name} is a stream: captions need pictures with names, in a folder or an archive")
        said = open_captions(captions, None).placed(source.names, source.name)
        source.captions = [said.sentences.get(name, []) for name in source.names]
    return source


def _open_named(text: str, split: str | None) -> Source | Stream | None:
    from fullrank.data import named, shapes, streams

    name, colon, rest = text.partition(":")
    if name == "shapes":
        return shapes.open_shapes(text, split)
    if text == "digits":
        return named.open_digits(split)
    if name == "torchvision" and colon:
        return named.open_torchvision(rest, split)
    if name == "hf" and colon:
        return streams.HuggingFace(rest, split)
    if (name == "wds" and colon) or (text.endswith(".tar") and "{" in text and not Path(text).exists()):
        return streams.WebDataset(text.removeprefix("wds:"), split)
    return None


def _open_path(
    text: str,
    split: str | None,
    include: str | None,
    captions: str | None,
    annotations: str | None,
    label_column: str | None,
) -> Source:
    from fullrank.data import archive, arrays, files

    path = Path(text).expanduser()
    try:
        if not path.exists():
            raise _missing(text, path)
        if path.is_dir():
            return files.ImageFiles(files.Folder(path.absolute()), split, include, captions, annotations, label_column)
    except OSError as error:  # a folder above it may not be entered
        raise InputError(f"cannot read '{text}': {error.strerror}") from error
    if path.name.endswith(archive.SUFFIXES):
        return files.ImageFiles(
            archive.open_archive(path.absolute()), split, include, captions, annotations, label_column
        )
    if path.suffix in (".npy", ".npz"):
        if split is not None:
            raise InputError(f"{path.name} is one array and has no split '{split}'; leave the split out")
        source = arrays.open_array_file(path)
        return _captioned(source, captions)  # type: ignore[return-value]
    raise InputError(f"'{text}' is a file of an unknown kind; data is {KINDS}")


def _missing(text: str, path: Path) -> InputError:
    prefix, colon, _ = text.partition(":")
    if colon and difflib.get_close_matches(prefix, PREFIXES):
        return unknown("kind of data", prefix, PREFIXES)
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [*beside, *NAMES], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"data is {KINDS}"
    return InputError(f"no file or folder '{text}': {hint}")
