"""Tables of paths and labels: CSV with a header, parquet, JSON lines, or a JSON list of objects; or of boxes.

The labels stand in one column (`label`, `class`, `finding_labels`, ..., or the one that is named), several of a picture
parted by `|` or `;` or as a list; or every class has a column of its own that holds 0 and 1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from fullrank.data import masks, sidecar
from fullrank.data.annotations import Annotations, note_wrong
from fullrank.data.box_tables import box_columns, read_boxes
from fullrank.data.layout import suffix
from fullrank.data.sidecar import PICTURES, Files, Row
from fullrank.errors import InputError, unknown

LABELS = (
    *("label", "labels", "class", "classes", "category", "categories", "class_name", "class_id", "label_name"),
    *("target", "targets", "tag", "tags", "finding", "findings", "finding_labels", "diagnosis", "dx", "species", "y"),
)
BETWEEN = ("|", ";")
NO_LABEL = ("", "none", "no finding", "nan")
"""Written where a picture of a set with several labels has none."""
PRESENT, ABSENT, UNSURE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", ""), ("-1", "-1.0", "u")
FEWEST_COLUMNS = 2


def read_table(name: str, content: bytes, files: Files | None, column: str | None = None) -> Annotations:
    """The labels of a table, or the masks that it names.

    Raises `InputError` where there are no labels, or more than a tenth of the rows cannot be used.
    """
    rows, wrong = [], []
    splits: dict[str, set[str]] = {}
    for spot, row in _rows(name, content):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            picture = sidecar.picture_of(row)
        except ValueError as error:
            wrong.append(f"{spot}: {error}")
            continue
        rows.append((spot, picture, row))
        split = sidecar.split_of(row)
        if split:
            splits.setdefault(split, set()).add(picture)
    note_wrong(name, wrong, len(rows) + len(wrong), "rows")
    if not rows:
        raise InputError(f"{name} holds no labels: it has no rows")
    given = {split: frozenset(some) for split, some in splits.items()}
    if files is not None and column is None and "mask" in rows[0][2]:
        pairs = {picture: [str(row["mask"])] for _, picture, row in rows if row.get("mask")}
        return masks.read_masks(name, masks.find(pairs, files, name), files, given)
    chosen = _column(name, rows[0][2], column)
    columns = box_columns(rows[0][2])
    if columns:
        return read_boxes(name, rows, columns, chosen, given)
    by_picture = [(picture, row) for _, picture, row in rows]
    return _of_column(name, by_picture, chosen, given) if chosen else _of_columns(name, by_picture, given)


def _rows(name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    if suffix(name) == ".parquet":
        return sidecar.parquet_rows(name, content)
    text = sidecar.text_of(name, content)
    if suffix(name) == ".jsonl":
        return sidecar.json_line_rows(text)
    if suffix(name) == ".json":
        return _json_rows(name, text)
    expected = f"labels as they are known: expected a header with a column {' or '.join(PICTURES[:3])}"
    return sidecar.csv_rows(name, text, _has_pictures, expected)


def _has_pictures(header: Collection[str]) -> bool:
    return bool(set(header) & set(PICTURES)) and len(header) > 1


def _json_rows(name: str, text: str) -> Iterator[tuple[str, Row]]:
    try:
        content = json.loads(text)
    except ValueError:
        return sidecar.json_line_rows(text)
    if isinstance(content, dict) and all(isinstance(value, str | int | list) for value in content.values()):
        content = [{"image": picture, "label": label} for picture, label in content.items()]
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise InputError(f"{name} holds no labels: expected COCO's format, a list of objects, or picture: label")
    return ((f"entry {number}", each) for number, each in enumerate(content, 1))


def _column(name: str, row: Mapping[str, Any], asked: str | None) -> str | None:
    """The column with the labels; None where every class has its own."""
    if asked is not None:
        known = asked.lower().replace(" ", "_")
        if known not in row:
            raise unknown(f"column of {name}", asked, row)
        return known
    return next((each for each in LABELS if each in row), None)


def _of_column(
    name: str, rows: Sequence[tuple[str, Mapping[str, Any]]], column: str, splits: Mapping[str, frozenset[str]]
) -> Annotations:
    given: dict[str, list[str]] = {}
    several = any(_is_several(row.get(column)) for _, row in rows)
    for picture, row in rows:
        mine = given.setdefault(picture, [])
        mine += [each for each in _parted(row.get(column), several) if each not in mine]
    doubled = [picture for picture, mine in given.items() if len(mine) > 1]
    if not several and 0 < len(doubled) <= sidecar.MAX_WRONG * len(given):  # a slip, not a set of several labels
        note_wrong(name, [f"'{picture}' has two labels" for picture in doubled], len(given), "pictures")
        given = {picture: mine for picture, mine in given.items() if len(mine) == 1}
    several = several or any(len(mine) > 1 for mine in given.values())
    known = {each for mine in given.values() for each in mine}
    numeric = all(each.lstrip("-").isdigit() for each in known)
    classes = sorted(known, key=int) if numeric else sorted(known)
    if not classes:
        raise InputError(f"{name}: the column '{column}' is empty")
    number = {label: place for place, label in enumerate(classes)}
    labels = {picture: [number[each] for each in mine] for picture, mine in given.items() if mine or several}
    return Annotations(name, classes, labels, several=several, splits=splits)


def _is_several(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and any(mark in value for mark in BETWEEN))


def _parted(value: Any, several: bool) -> list[str]:
    """The labels in an entry."""
    if value is None or value != value:
        return []
    if isinstance(value, list):
        return [str(each).strip() for each in value]
    text = str(value).strip()
    for mark in BETWEEN:
        text = text.replace(mark, BETWEEN[0])
    parts = [each.strip() for each in text.split(BETWEEN[0])] if several else [text]
    return [each for each in parts if each.lower() not in (NO_LABEL if several else ("",))]


def _of_columns(
    name: str, rows: Sequence[tuple[str, Mapping[str, Any]]], splits: Mapping[str, frozenset[str]]
) -> Annotations:
    others = [each for each in rows[0][1] if each not in (*PICTURES, "split")]
    signs = {each: {_sign(row.get(each)) for _, row in rows} for each in others}
    known = {*PRESENT, *ABSENT, *UNSURE}
    classes = [each for each in others if signs[each] <= known and signs[each] & set(PRESENT)]
    if len(classes) < FEWEST_COLUMNS:
        raise InputError(
            f"{name} holds no labels: none of its columns {', '.join(map(str, rows[0][1]))} is called {LABELS[0]}, "
            f"{LABELS[2]} or the like, and no two hold 0 and 1; name one with --label_column"
        )
    # Where nothing is 0 or empty, -1 is the sign of what is absent.
    has_absent = any(signs[each] & set(ABSENT) for each in classes)
    labels, unsure = {}, {}
    for picture, row in rows:
        marks = [_sign(row.get(each)) for each in classes]
        labels[picture] = [place for place, mark in enumerate(marks) if mark in PRESENT]
        unsure[picture] = [place for place, mark in enumerate(marks) if mark in UNSURE and has_absent]
    return Annotations(name, classes, labels, unsure, splits=splits)


def _sign(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip().lower()
