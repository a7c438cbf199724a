"""COCO's JSON: images, categories, and annotations with boxes and, where given, polygons or run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fullrank.data.annotations import Annotations, note_wrong, split_in_name
from fullrank.data.objects import Drawn, Objects
from fullrank.data.sidecar import text_of
from fullrank.errors import InputError

Marked = tuple[list[float], int, bool, Any]  # box, label, whether it is a crowd, segmentation


def read_coco(name: str, content: bytes) -> Annotations | None:
    """The annotations of a file in COCO's format; None where it is another kind of JSON.

    Boxes are cut at the picture's border. Those of no area, outside, of unknown pictures or categories are left out
    and named. Raises `InputError` where these are more than a tenth.
    """
    try:
        given = json.loads(text_of(name, content))
    except ValueError:
        return None
    if not isinstance(given, dict) or not {"images", "annotations", "categories"} <= given.keys():
        return None
    if not any("bbox" in each for each in given["annotations"]):
        return None
    try:
        images = {each["id"]: each for each in given["images"]}
        paths = {number: _path(each["file_name"]) for number, each in images.items()}
        categories = sorted(given["categories"], key=lambda each: each["id"])
        numbers = {each["id"]: number for number, each in enumerate(categories)}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: an image or a category lacks {error}: expected COCO's format") from error
    marked: dict[Any, list[Marked]] = defaultdict(list)
    wrong = []
    for annotation in given["annotations"]:
        try:
            marked[annotation["image_id"]].append(_marked(annotation, images, numbers))
        except (ValueError, TypeError) as error:
            wrong.append(f"annotation {annotation.get('id', '?')}: {error}")
    note_wrong(name, wrong, len(given["annotations"]), "annotations")
    split = split_in_name(name)
    return Annotations(
        name,
        [str(each.get("name", each["id"])) for each in categories],
        {path: _labels(marked[number]) for number, path in paths.items()},
        {path: _labels(marked[number], crowds=True) for number, path in paths.items()},
        objects={path: partial(_objects, marked[number], images[number]) for number, path in paths.items()},
        splits={split: frozenset(paths.values())} if split else {},
    )


def _marked(annotation: Mapping[str, Any], images: Mapping[Any, Any], numbers: Mapping[Any, int]) -> Marked:
    """One object. Raises `ValueError` for what is wrong with it."""
    image, category, box = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if image not in images:
        raise ValueError(f"image_id {image} is none of the images")
    if category not in numbers:
        raise ValueError(f"category_id {category} is none of the categories")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox {box}: expected [left, top, width, height]")
    return (
        cut_box(
            [box[0], box[1], box[0] + box[2], box[1] + box[3]], images[image].get("width"), images[image].get("height")
        ),
        numbers[category],
        bool(annotation.get("iscrowd", 0)),
        _drawn(annotation.get("segmentation"), images[image]),
    )


def _path(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _drawn(segmentation: Any, image: Mapping[str, Any]) -> Any:
    """Polygons of three corners or more, or run lengths of the picture's size; None for what is neither."""
    if isinstance(segmentation, list):
        polygons = [each for each in segmentation if isinstance(each, list) and len(each) >= 6 and len(each) % 2 == 0]
        return polygons if polygons and {"height", "width"} <= image.keys() else None
    if isinstance(segmentation, dict) and "counts" in segmentation:
        return segmentation if list(segmentation.get("size", [])) == [image.get("height"), image.get("width")] else None
    return None


def cut_box(box: Sequence[float], width: float | None, height: float | None) -> list[float]:
    """A box cut at the picture's border, where its size is known. Raises `ValueError` where nothing is left."""
    left, top, right, bottom = map(float, box)
    if not np.isfinite([left, top, right, bottom]).all() or right <= left or bottom <= top:
        raise ValueError(f"the box {box} has no area")
    right, bottom = min(right, width or right), min(bottom, height or bottom)
    left, top = max(left, 0.0), max(top, 0.0)
    if right <= left or bottom <= top:
        raise ValueError(f"the box {box} lies outside the picture of {width} x {height} px")
    return [left, top, right, bottom]


def _labels(marked: Sequence[Marked], *, crowds: bool = False) -> list[int]:
    """The labels that single objects have; or, those that crowds alone have."""
    of_crowds = {label for _, label, crowd, _ in marked if crowd}
    single = {label for _, label, crowd, _ in marked if not crowd}
    return sorted(of_crowds - single if crowds else single)


def _objects(marked: Sequence[Marked], image: Mapping[str, Any]) -> Objects:
    if not marked:
        return Objects()
    boxes, labels, crowds, drawn = zip(*marked, strict=True)
    complete = all(each is not None for each, crowd in zip(drawn, crowds, strict=True) if not crowd)
    filled = [each or [[x, y, r, y, r, b, x, b]] for each, (x, y, r, b) in zip(drawn, boxes, strict=True)]  # of crowds
    masks = Drawn(filled, int(image["height"]), int(image["width"])) if complete and any(drawn) else None
    many = np.array(crowds, bool)
    return Objects(np.array(boxes, np.float32), np.array(labels, np.int64), many, masks, many)
