"""Files beside the pictures that say something about them: their rows, and which picture each row means.

JSON lines, JSON, parquet, and CSV with a header; captions and labels both come in them.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from fullrank.data.layout import SPLIT_NAMES, is_image
from fullrank.errors import InputError

log = logging.getLogger(__name__)
PICTURES = (
    *("image", "file", "file_name", "filename", "filepath", "file_path", "image_name", "image_path", "path", "img"),
    *("image_index", "image_id", "id"),
)
DELIMITERS = ("\t", "|", ";", ",")
NAMED = 3
"""How many offenders a message names."""
MAX_WRONG = 0.1
"""The share of lines that cannot be used above which a file is something else."""

Row = dict[str, Any] | str  # a line's entries by name, or what is wrong with it


class Files(Protocol):
    """Files by their paths, such as a folder's or an archive's."""

    label: str
    paths: Sequence[str]

    def open(self, path: str) -> BinaryIO:
        """The file's content from its start."""


def first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The entry of the first of the names that a row has."""
    return next((row[name] for name in names if name in row), None)


def picture_of(row: Mapping[str, Any]) -> str:
    """Which picture a row means, with forward slashes. Raises `ValueError` where it does not say."""
    given = first(row, PICTURES)
    if isinstance(given, int):  # a number that names a file
        given = str(given)
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"no picture: expected one of {', '.join(PICTURES)}, found {', '.join(map(str, row))}")
    return given.strip().replace("\\", "/").removeprefix("./")


def split_of(row: Mapping[str, Any]) -> str | None:
    """The split that a row names, if it names one."""
    split = row.get("split")
    return split if isinstance(split, str) and split else None


def text_of(name: str, content: bytes) -> str:
    """The text of a file. Raises `InputError` where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 from byte {error.start} on: save it as UTF-8") from error


def json_line_rows(text: str) -> Iterator[tuple[str, Row]]:
    """The lines of a file of JSON lines with their places."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                row = f"not JSON ({error})"
            yield f"line {number}", row if isinstance(row, dict | str) else "expected an object {...}"


def csv_rows(
    name: str, text: str, wanted: Callable[[Collection[str]], bool], expected: str
) -> Iterator[tuple[str, Row]]:
    """The lines of a table with their places; entries go by the header's names in small letters.

    Raises `InputError` where no delimiter makes a header with the `wanted` names; `expected` says in words which.
    """
    head = text.partition("\n")[0]
    for delimiter in DELIMITERS:
        header = [
            field.strip().lower().replace(" ", "_") for field in next(csv.reader([head], delimiter=delimiter), [])
        ]
        if wanted(header):
            break
    else:
        raise InputError(f"{name} holds no {expected}, found '{head.strip()[:60]}'")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for fields in reader:
            if reader.line_num == 1 or not fields:
                continue
            row: Row = f"{len(fields)} columns in place of {len(header)}: put texts with '{delimiter}' in quotes"
            if len(fields) == len(header):
                row = dict(zip(header, fields, strict=True))
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: {error}") from error


def parquet_rows(name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    """The rows of a parquet table with their places. Raises `InputError` where it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except pyarrow.ArrowException as error:
        raise InputError(f"{name} cannot be read: {' '.join(str(error).split())}") from error
    header = [column.strip().lower().replace(" ", "_") for column in table.column_names]
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", dict(zip(header, row.values(), strict=True))


def place(given: Iterable[str], paths: Sequence[str], name: str, where: str) -> dict[str, str]:
    """The path of every picture that the file `name` means; those that are missing in `where` are logged.

    The file may write a path from the top of the data, from any folder inside it, or from one above it, and may leave
    out a picture's ending. Raises `InputError` where no picture is found, or one name may be several pictures.
    """
    by_name = defaultdict(list)
    for path in paths:
        by_name[path.rpartition("/")[2]].append(path)
        by_name[path.rpartition("/")[2].rpartition(".")[0]].append(path)
    places = {each: _place(each, by_name, name) for each in given}
    missing = [each for each, path in places.items() if path is None]
    if len(missing) == len(places):
        raise InputError(
            f"{name} names none of the {len(paths):,} pictures of {where}: it names '{missing[0]}', "
            f"and they are called like '{paths[0]}'"
        )
    if missing:
        log.warning("%s names %d pictures that %s has not: %s", name, len(missing), where, some(missing))
    return {each: path for each, path in places.items() if path is not None}


def _place(given: str, by_name: Mapping[str, list[str]], name: str) -> str | None:
    candidates = by_name.get(given.rpartition("/")[2], [])
    if given in candidates:
        return given
    ending = "" if is_image(given) else "."
    fitting = [path for path in candidates if _same(path, given, ending)]
    if len(fitting) > 1:
        raise InputError(f"{name}: '{given}' may be {' or '.join(fitting[:NAMED])}: write the path from the top")
    return fitting[0] if fitting else None


def _same(path: str, given: str, ending: str) -> bool:
    """Whether one of two paths is the end of the other."""
    if ending:
        path = path.rpartition(ending)[0]
    return f"/{path}".endswith(f"/{given}") or f"/{given}".endswith(f"/{path}")


def by_split(splits: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The pictures of every split, where the split of every picture is known."""
    parts: dict[str, list[str]] = defaultdict(list)
    for path, split in splits.items():
        parts[split].append(path)
    return {split: frozenset(paths) for split, paths in parts.items()}


def take_split(
    splits: Mapping[str, Collection[str]], images: list[str], asked: str | None
) -> tuple[list[str], str | None]:
    """The pictures of a split, and its name, where a file names `splits` and the folders do not.

    As with folders, train is taken where it stands beside others and none is asked for; train and val together, VOC's
    trainval, where there is a test part.
    """
    folders = {part for path in images for part in path.split("/")[:-1]}
    if asked is None and len(splits) > 1 and not folders & SPLIT_NAMES:
        usual = ("train", "training", "trainval")
        asked = next((name for name in (usual[::-1] if "test" in splits else usual) if name in splits), None)
    if asked is None or asked not in splits or asked in folders:
        return images, None
    return [path for path in images if path in splits[asked]], asked


def find_named(given: str, files: Files | None, usual: Callable[[str], bool], what: str) -> tuple[str, bytes]:
    """The name and content of a file that was named: on the disk, or among the files of the data.

    Raises `InputError` where there is none, or several; `usual` says which files are called like `what`.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path.name, path.read_bytes()
    inside = [each for each in files.paths if PurePosixPath(each).match(given)] if files else []
    if files and len(inside) == 1:
        return inside[0], read_inside(files, inside[0])
    known = [each for each in files.paths if usual(each)] if files else []
    near = difflib.get_close_matches(given, known, n=1) or known[:1]
    hint = f"{files.label if files else ''} has '{near[0]}'" if near else "give the file's path"
    raise InputError(f"{what} '{given}': {'several files' if inside else 'no file'} of this name; {hint}")


def read_inside(files: Files, path: str) -> bytes:
    """The content of one of the files."""
    with files.open(path) as file:
        return file.read()


def some(names: Iterable[str]) -> str:
    """The first of them, for a message."""
    listed = list(names)
    return "; ".join(listed[:NAMED]) + ("; ..." if len(listed) > NAMED else "")
