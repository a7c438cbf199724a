"""Tables with a box a row: `filename,width,height,class,xmin,ymin,xmax,ymax`, or a column `bbox` of [x, y, w, h]."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fullrank.data.annotations import Annotations, note_wrong
from fullrank.data.coco import cut_box
from fullrank.data.objects import Objects
from fullrank.data.sidecar import PICTURES

CORNERS = (
    *(("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2")),
    ("left", "top", "right", "bottom"),
)
BBOX = ("bbox",)
ONLY_CLASS = "object"  # where the table names none


def box_columns(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The columns with boxes; None where there are none."""
    return next((names for names in (*CORNERS, BBOX) if all(name in row for name in names)), None)


def read_boxes(
    name: str,
    rows: Sequence[tuple[str, str, Mapping[str, Any]]],
    columns: tuple[str, ...],
    label_column: str | None,
    splits: Mapping[str, frozenset[str]],
) -> Annotations:
    """The objects of a table; a row without numbers is a picture without objects.

    Args:
        name: of the table.
        rows: place in the table, picture and entries of each.
        columns: those with the box, see `box_columns`.
        label_column: the one with the class; None where all are of one.
        splits: the pictures of each split.

    Raises:
        InputError: more than a tenth of the boxes has no area or lies outside its picture.
    """
    label_column = label_column or only_words(rows, columns)
    found: dict[str, list[tuple[list[float], str]]] = defaultdict(list)
    wrong = []
    for spot, picture, row in rows:
        mine = found[picture]
        if all(row[each] in (None, "", "[]", []) for each in columns):
            continue
        try:
            box = cut_box(_corners(row, columns), _number(row.get("width")), _number(row.get("height")))
        except (ValueError, TypeError) as error:
            wrong.append(f"{spot}: {error}")
            continue
        mine.append((box, str(row[label_column]).strip() if label_column else ONLY_CLASS))
    note_wrong(name, wrong, len(rows), "boxes")
    classes = sorted({label for mine in found.values() for _, label in mine})
    number = {label: place for place, label in enumerate(classes)}
    return Annotations(
        name,
        classes,
        {picture: sorted({number[label] for _, label in mine}) for picture, mine in found.items()},
        objects={picture: partial(_objects, mine, number) for picture, mine in found.items()},
        splits=splits,
    )


def only_words(rows: Sequence[tuple[str, str, Mapping[str, Any]]], columns: tuple[str, ...]) -> str | None:
    """The one other column that holds words, such as `cell_type`; None where there are none or several."""
    others = [name for name in rows[0][2] if name not in (*PICTURES, *columns, "split", "width", "height", "depth")]
    words = [name for name in others if any(_number(row.get(name)) is None and row.get(name) for _, _, row in rows)]
    return words[0] if len(words) == 1 else None


def _corners(row: Mapping[str, Any], columns: tuple[str, ...]) -> list[float]:
    if columns != BBOX:
        return [float(row[each]) for each in columns]
    given = json.loads(row["bbox"]) if isinstance(row["bbox"], str) else row["bbox"]
    left, top, width, height = map(float, given)
    return [left, top, left + width, top + height]


def _number(value: Any) -> float | None:
    """A side of the picture, where the table gives it."""
    try:
        return float(value) or None
    except (ValueError, TypeError):
        return None


def _objects(marked: Sequence[tuple[list[float], str]], number: Mapping[str, int]) -> Objects:
    if not marked:
        return Objects()
    boxes = np.array([box for box, _ in marked], np.float32)
    labels = np.array([number[label] for _, label in marked], np.int64)
    return Objects(boxes, labels, np.zeros(len(labels), bool))
