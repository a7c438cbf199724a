"""Captions: which sentences belong to which picture, from the files in which data sets bring them.

JSON lines, JSON (COCO's, Karpathy's splits, a list of objects), CSV with a header, and Flickr's
`picture.jpg#0<TAB>caption`.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from fullrank.data.layout import SPLIT_NAMES, is_hidden, suffix
from fullrank.errors import InputError

log = logging.getLogger(__name__)
CAPTION_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".token")
TYPICAL_NAMES = re.compile(r"caption|\btoken\b|^metadata\.(jsonl|csv)$")
"""How files of captions are called: captions.jsonl, Flickr8k.token.txt, captions_train2017.json, metadata.csv."""
PICTURES = ("image", "file", "file_name", "filename", "filepath", "image_name", "image_path", "path", "img")
SENTENCES = ("captions", "caption", "sentences", "text", "comment", "sentence", "raw")
DELIMITERS = ("\t", "|", ";", ",")
TOKEN_LINE = re.compile(r"(.+)#\d+\t(.*)")
MAX_WRONG = 0.1
"""The share of lines without a picture or a sentence above which a file is something else."""
NAMED = 3
"""How many offenders a message names."""

Row = dict[str, Any] | str  # a line's entries by name, or what is wrong with it


class Files(Protocol):
    """Files by their paths, such as a folder's or an archive's."""

    label: str
    paths: Sequence[str]

    def open(self, path: str) -> BinaryIO:
        """The file's content from its start."""


@dataclass(frozen=True)
class Captions:
    """What caption files say.

    Attributes:
        name: of the file, for messages.
        sentences: those of every picture, by its path as the file writes it.
        splits: of the pictures, by the same paths, where the file names them.
    """

    name: str
    sentences: Mapping[str, list[str]]
    splits: Mapping[str, str]

    def placed(self, paths: Sequence[str], where: str) -> Captions:
        """The same by the paths of the pictures at hand; what is missing is logged.

        The file may write a path from the top of the data, from any folder inside it, or from one above it.
        Raises `InputError` where no picture is found, or one name may be several pictures.
        """
        by_name = defaultdict(list)
        for path in paths:
            by_name[path.rpartition("/")[2]].append(path)
        places = {given: _place(given, by_name, self.name) for given in self.sentences}
        missing = [given for given, path in places.items() if path is None]
        if len(missing) == len(places):
            raise InputError(
                f"{self.name} names none of the {len(paths):,} pictures of {where}: it names '{missing[0]}', "
                f"and they are called like '{paths[0]}'"
            )
        if missing:
            log.warning("%s names %d pictures that %s has not: %s", self.name, len(missing), where, _some(missing))
        sentences: dict[str, list[str]] = defaultdict(list)
        splits: dict[str, str] = {}
        for given, place in places.items():
            if place is not None:
                sentences[place] += self.sentences[given]
                splits |= {place: self.splits[given]} if given in self.splits else {}
        return Captions(self.name, dict(sentences), splits)

    def split(self, images: list[str], asked: str | None) -> tuple[list[str], str | None]:
        """The pictures of a split, and its name, where this file names splits and the folders do not.

        As with folders, train is taken where it stands beside others and none is asked for.
        """
        known = set(self.splits.values())
        folders = {part for path in images for part in path.split("/")[:-1]}
        if asked is None and len(known) > 1 and not folders & SPLIT_NAMES:
            asked = next((name for name in ("train", "training") if name in known), None)
        if asked not in known or asked in folders:
            return images, None
        return [path for path in images if self.splits.get(path) == asked], asked


def looks_like_captions(path: str) -> bool:
    """Whether a file is called like one of captions."""
    name = path.rpartition("/")[2].lower()
    return suffix(name) in CAPTION_SUFFIXES and bool(TYPICAL_NAMES.search(name)) and not is_hidden(path)


def open_captions(given: str, files: Files | None) -> Captions:
    """The captions in a file that was named: on the disk, or among the files of the data.

    Raises `InputError` where there is no such file or it holds no captions.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return read_captions(path.name, path.read_bytes())
    inside = [each for each in files.paths if PurePosixPath(each).match(given)] if files else []
    if files and len(inside) == 1:
        return _read_inside(files, inside[0])
    known = [each for each in files.paths if looks_like_captions(each)] if files else []
    near = difflib.get_close_matches(given, known, n=1) or known[:1]
    hint = f"{files.label if files else ''} has '{near[0]}'" if near else "give the file's path"
    raise InputError(f"captions '{given}': {'several files' if inside else 'no file'} of this name; {hint}")


def find_captions(files: Files) -> Captions | None:
    """The captions in the files that are called like it; one that cannot be used is logged and left aside.

    Several are taken together, as COCO's of train and val, unless they speak of the same pictures.
    """
    found: list[Captions] = []
    for path in filter(looks_like_captions, files.paths):
        try:
            found.append(_read_inside(files, path))
        except InputError as error:  # a metadata.csv may speak of anything
            log.log(logging.WARNING if "metadata" not in path else logging.DEBUG, "captions are not taken: %s", error)
    named = [given for each in found for given in each.sentences]
    if len(set(named)) < len(named):
        names = ", ".join(each.name for each in found)
        log.warning("captions are not taken: %s caption the same pictures; name one with --captions", names)
        return None
    return _joined(found) if found else None


def _joined(found: Sequence[Captions]) -> Captions:
    sentences = {given: lines for each in found for given, lines in each.sentences.items()}
    splits = {given: split for each in found for given, split in each.splits.items()}
    return Captions(" and ".join(each.name for each in found), sentences, splits)


def _read_inside(files: Files, path: str) -> Captions:
    with files.open(path) as file:
        return read_captions(path, file.read())


def read_captions(name: str, content: bytes) -> Captions:
    """The captions in a file; its ending and first line say how it is written.

    Lines that lack a picture or a sentence are left out and logged. Raises `InputError` where these are more than a
    tenth, or nothing is left.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 from byte {error.start} on: save it as UTF-8") from error
    sentences: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    wrong, count = [], 0
    for place, row in _rows(name, text):
        count += 1
        try:
            picture, lines, split = _entry(row)
        except ValueError as error:
            wrong.append(f"{place}: {error}")
            continue
        sentences.setdefault(picture, []).extend(lines)
        if split:
            splits[picture] = "train" if split == "restval" else split  # as VSE++ takes Karpathy's
    if len(wrong) > MAX_WRONG * count or not sentences:
        raise InputError(f"{name} holds no captions as they are known: {wrong[0] if wrong else 'it has no lines'}")
    if wrong:
        log.warning("%s: left out %s of %s lines: %s", name, len(wrong), f"{count:,}", _some(wrong))
    return Captions(name, sentences, splits)


def _entry(row: Row) -> tuple[str, list[str], str | None]:
    """Picture, sentences and split of a line. Raises `ValueError` for what is wrong with it."""
    if isinstance(row, str):
        raise ValueError(row)
    picture, given = _first(row, PICTURES), _first(row, SENTENCES)
    if not isinstance(picture, str) or not picture.strip():
        raise ValueError(f"no picture: expected one of {', '.join(PICTURES)}, found {', '.join(map(str, row))}")
    lines = [given] if isinstance(given, str | dict) else given
    if not isinstance(lines, list):
        raise ValueError(f"no caption: expected one of {', '.join(SENTENCES)}, found {', '.join(map(str, row))}")
    said = [_first(line, SENTENCES) if isinstance(line, dict) else line for line in lines]
    sentences = [" ".join(line.split()) for line in said if isinstance(line, str) and line.strip()]
    if not sentences:
        raise ValueError("its caption is empty")
    split = row.get("split")
    return picture.strip().replace("\\", "/").removeprefix("./"), sentences, split if isinstance(split, str) else None


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    """The lines of a file with their places."""
    kind = suffix(name)
    if kind == ".jsonl":
        return _json_line_rows(text)
    if kind == ".json":
        return _json_rows(name, text)
    if TOKEN_LINE.match(text.lstrip().partition("\n")[0]):
        return _token_rows(text)
    return _csv_rows(name, text)


def _json_line_rows(text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                row = f"not JSON ({error})"
            yield f"line {number}", row if isinstance(row, dict | str) else "expected an object {...}"


def _json_rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    try:
        content = json.loads(text)
    except ValueError:
        return _json_line_rows(text)
    if isinstance(content, dict):
        images = content.get("images", [content])
        if "annotations" in content:
            files = {image.get("id"): image.get("file_name") for image in images}
            images = [_coco_row(files, annotation) for annotation in content["annotations"]]
    else:
        images = content
    if not isinstance(images, list) or not all(isinstance(image, dict | str) for image in images):
        raise InputError(f"{name} holds no captions: expected COCO's `images` and `annotations`, or a list of objects")
    return ((f"entry {number}", _in_folder(image)) for number, image in enumerate(images, 1))


def _in_folder(image: Row) -> Row:
    """Karpathy's splits name the folder of a picture apart."""
    if isinstance(image, dict) and "filepath" in image and "filename" in image:
        return image | {"image": f"{image['filepath']}/{image['filename']}"}
    return image


def _coco_row(files: Mapping[Any, Any], annotation: Mapping[str, Any]) -> Row:
    number = annotation.get("image_id")
    return {"image": files[number], **annotation} if number in files else f"image_id {number} is none of the images"


def _token_rows(text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            found = TOKEN_LINE.match(line)
            row: Row = {"image": found[1], "caption": found[2]} if found else "expected PICTURE#0<TAB>CAPTION"
            yield f"line {number}", row


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    head = text.partition("\n")[0]
    for delimiter in DELIMITERS:
        header = [field.strip().lower() for field in next(csv.reader([head], delimiter=delimiter), [])]
        if set(header) & set(PICTURES) and set(header) & set(SENTENCES):
            break
    else:
        raise InputError(
            f"{name} holds no captions as they are known: expected a header with a column {' or '.join(PICTURES[:3])} "
            f"and one {' or '.join(SENTENCES[1:5:2])}, or lines PICTURE#0<TAB>CAPTION, found '{head.strip()[:60]}'"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for fields in reader:
            if reader.line_num == 1 or not fields:
                continue
            row: Row = f"{len(fields)} columns in place of {len(header)}: put captions with '{delimiter}' in quotes"
            if len(fields) == len(header):
                row = dict(zip(header, fields, strict=True))
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: {error}") from error


def _place(given: str, by_name: Mapping[str, list[str]], name: str) -> str | None:
    """The path of the picture that a file of captions names; None where there is none."""
    candidates = by_name.get(given.rpartition("/")[2], [])
    if given in candidates:
        return given
    fitting = [path for path in candidates if f"/{path}".endswith(f"/{given}") or f"/{given}".endswith(f"/{path}")]
    if len(fitting) > 1:
        raise InputError(f"{name}: '{given}' may be {' or '.join(fitting[:NAMED])}: write the path from the top")
    return fitting[0] if fitting else None


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return "; ".join(listed[:NAMED]) + ("; ..." if len(listed) > NAMED else "")
