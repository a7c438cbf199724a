"""Captions: which sentences belong to which picture, from the files in which data sets bring them.

JSON lines, JSON (COCO's, Karpathy's splits, a list of objects), CSV with a header, and Flickr's
`picture.jpg#0<TAB>caption`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fullrank.data import sidecar
from fullrank.data.layout import is_hidden, suffix
from fullrank.data.sidecar import MAX_WRONG, PICTURES, Files, Row, first, some
from fullrank.errors import InputError

log = logging.getLogger(__name__)
CAPTION_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".token")
TYPICAL_NAMES = re.compile(r"caption|\btoken\b|^metadata\.(jsonl|csv)$")
"""How files of captions are called: captions.jsonl, Flickr8k.token.txt, captions_train2017.json, metadata.csv."""
SENTENCES = ("captions", "caption", "sentences", "text", "comment", "sentence", "raw")
TOKEN_LINE = re.compile(r"(.+)#\d+\t(.*)")
EXPECTED = (
    f"captions as they are known: expected a header with a column {' or '.join(PICTURES[:3])} and one "
    f"{' or '.join(SENTENCES[1:5:2])}, or lines PICTURE#0<TAB>CAPTION"
)


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
        """The same by the paths of the pictures at hand; see `sidecar.place`."""
        sentences: dict[str, list[str]] = defaultdict(list)
        splits: dict[str, str] = {}
        for given, path in sidecar.place(self.sentences, paths, self.name, where).items():
            sentences[path] += self.sentences[given]
            splits |= {path: self.splits[given]} if given in self.splits else {}
        return Captions(self.name, dict(sentences), splits)


def looks_like_captions(path: str) -> bool:
    """Whether a file is called like one of captions."""
    name = path.rpartition("/")[2].lower()
    return suffix(name) in CAPTION_SUFFIXES and bool(TYPICAL_NAMES.search(name)) and not is_hidden(path)


def open_captions(given: str, files: Files | None) -> Captions:
    """The captions in a file that was named: on the disk, or among the files of the data.

    Raises `InputError` where there is no such file or it holds no captions.
    """
    return read_captions(*sidecar.find_named(given, files, looks_like_captions, "captions"))


def find_captions(files: Files) -> Captions | None:
    """The captions in the files that are called like it; one that cannot be used is logged and left aside.

    Several are taken together, as COCO's of train and val, unless they speak of the same pictures.
    """
    found: list[Captions] = []
    for path in filter(looks_like_captions, files.paths):
        try:
            found.append(read_captions(path, sidecar.read_inside(files, path)))
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


def read_captions(name: str, content: bytes) -> Captions:
    """The captions in a file; its ending and first line say how it is written.

    Lines that lack a picture or a sentence are left out and logged. Raises `InputError` where these are more than a
    tenth, or nothing is left.
    """
    sentences: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    wrong, count = [], 0
    for place, row in _rows(name, sidecar.text_of(name, content)):
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
        log.warning("%s: left out %s of %s lines: %s", name, len(wrong), f"{count:,}", some(wrong))
    return Captions(name, sentences, splits)


def _entry(row: Row) -> tuple[str, list[str], str | None]:
    """Picture, sentences and split of a line. Raises `ValueError` for what is wrong with it."""
    if isinstance(row, str):
        raise ValueError(row)
    picture, given = sidecar.picture_of(row), first(row, SENTENCES)
    lines = [given] if isinstance(given, str | dict) else given
    if not isinstance(lines, list):
        raise ValueError(f"no caption: expected one of {', '.join(SENTENCES)}, found {', '.join(map(str, row))}")
    said = [first(line, SENTENCES) if isinstance(line, dict) else line for line in lines]
    sentences = [" ".join(line.split()) for line in said if isinstance(line, str) and line.strip()]
    if not sentences:
        raise ValueError("its caption is empty")
    return picture, sentences, sidecar.split_of(row)


def _rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    """The lines of a file with their places."""
    kind = suffix(name)
    if kind == ".jsonl":
        return sidecar.json_line_rows(text)
    if kind == ".json":
        return _json_rows(name, text)
    if TOKEN_LINE.match(text.lstrip().partition("\n")[0]):
        return _token_rows(text)
    return sidecar.csv_rows(name, text, _has_captions, EXPECTED)


def _json_rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    try:
        content = json.loads(text)
    except ValueError:
        return sidecar.json_line_rows(text)
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


def _has_captions(header: Collection[str]) -> bool:
    return bool(set(header) & set(PICTURES) and set(header) & set(SENTENCES))
