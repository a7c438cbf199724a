"""From a table to the runs that fill it, at the scale of the data and the backbone that are at hand.

The published runs have an embedding of 8192 dimensions and batches of 2048. Where the recipe of the data has others,
the widths and batches that a table compares are in the same proportion to them. What a slide names by its place beside
ResNet-50 - a larger residual network, a transformer, SimSiam's predictor - is taken in the same place beside the
backbone and the width at hand; views with and without multi-crop are the recipe's own with and without small ones.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fullrank.errors import InputError, unknown
from fullrank.evaluation.splits import HELD_OUT
from fullrank.runs.build import text_encoder_of
from fullrank.runs.settings import resolve
from fullrank.tables.talk import IMPOSSIBLE, Cell, Table
from fullrank.training.estimate import Known
from fullrank.training.prepare import view_recipe
from fullrank.views import View, swav_views

PUBLISHED_WIDTH, PUBLISHED_BATCH = 8192, 2048
WIDTH_OPTIONS = ("expander", "projector")
FROM_LABELS = ("linear", "svm", "knn")  # protocols that need nothing but a label a picture
TRAINING = ("finetune", "detection")  # protocols that train the network
FEWEST = 8  # dimensions, and pictures in a batch, at the least
# What stands beside a backbone: one with more layers, and a transformer of about its size.
BESIDE: dict[str, dict[str, str]] = {
    "resnet50": {"larger": "resnet101", "vit": "vit_small_patch16_224"},
    "resnet34": {"larger": "resnet50", "vit": "vit_small_patch16_224"},
    "resnet18": {"larger": "resnet34", "vit": "vit_tiny_patch16_224"},
    "resnet10t": {"larger": "resnet18", "vit": "test_vit"},
    "test_resnet": {"larger": "resnet10t", "vit": "test_vit"},
}


@dataclass(frozen=True)
class Job:
    """One run of a table.

    Attributes:
        name: of its folder.
        settings: of `fullrank train`, beside data and seed.
        judged: options of `fullrank evaluate`, one mapping for each evaluation that its cells need.
        cells: places (row, column) of the cells that it fills.
    """

    name: str
    settings: Mapping[str, Any]
    judged: tuple[Mapping[str, Any], ...]
    cells: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Job:
        """The job that `to_dict` wrote."""
        cells = tuple((row, column) for row, column in stored["cells"])
        return cls(stored["name"], stored["settings"], tuple(stored["judged"]), cells)


@dataclass(frozen=True)
class Judging:
    """What the runs of a table can be judged by.

    Attributes:
        downstream: data sets for columns that are judged on others than the runs' own, by the names in the table.
        known: of the pictures of the runs' own data (`estimate.Opened`).
        smallest_class: pictures of the class that has fewest there; None where that is unknown.
        detection_steps: of the training of a detector; as published when None.
    """

    downstream: Mapping[str, str] = field(default_factory=dict)
    known: Known = "one"
    smallest_class: int | None = None
    detection_steps: int | None = None


def expand(table: Table, base: Mapping[str, Any], image_size: int, judging: Judging) -> tuple[list[Job], list[str]]:
    """The runs that fill a table, and what is left out; cells with the same settings share one.

    Args:
        table: of the talk.
        base: settings of all runs, as `fullrank train` takes them: data, and where they were given backbone, epochs and
            others.
        image_size: pixels a side that the networks see.
        judging: by what they can be judged.

    Raises:
        InputError: settings that no run can have, or a backbone beside which no other is known.
    """
    judges, notes = judges_of(table, judging)
    found: dict[str, Job] = {}
    taken: set[str] = set()
    left_out: set[str] = set()
    for number, cell in enumerate(table.cells()):
        if cell.published == IMPOSSIBLE:
            continue
        if cell.settings["method"] == "supervised" and judging.known != "one":
            left_out.add(cell.row.name)
            continue
        place = divmod(number, len(table.columns))
        settings = fill_in(cell.settings, base, image_size)
        key = json.dumps(settings, sort_keys=True)
        known = found.get(key) or Job(_name(table, cell, taken), settings, (), ())
        judge = judges[place[1]]
        judged = known.judged if judge is None or judge in known.judged else (*known.judged, judge)
        found[key] = Job(known.name, settings, judged, (*known.cells, place))
        taken.add(known.name)
    if left_out:
        notes.append(f"{', '.join(sorted(left_out))} is left out: it takes one label a picture.")
    return list(found.values()), notes


def judges_of(table: Table, judging: Judging) -> tuple[list[Mapping[str, Any] | None], list[str]]:
    """How each column is judged here, None where it cannot be, and that in words.

    Where no other data set is given at all, columns that need nothing but labels are judged on the runs' own.
    Raises `InputError` for a data set that no column asks for.
    """
    downstream = judging.downstream
    wanted = list(dict.fromkeys(column.judge["data"] for column in table.columns if "data" in column.judge))
    for name in downstream:
        if name not in wanted:
            raise unknown(f"data set of {table.name}", name, wanted)
    judges: list[Mapping[str, Any] | None] = []
    missing: dict[str, None] = {}
    own, too_few = [], []
    for column in table.columns:
        asked = dict(column.judge)
        name = asked.pop("data", "")
        if name in downstream:
            shorter = judging.detection_steps is not None and asked["protocol"] == "detection"
            steps = {"steps": judging.detection_steps} if shorter else {}
            judges.append(asked | {"data": downstream[name]} | steps)
        elif name and (downstream or asked["protocol"] not in FROM_LABELS):
            judges.append(None)
            missing[name] = None
        elif judging.known == "nothing" and asked["protocol"] in (*FROM_LABELS, "finetune"):
            judges.append(None)
        elif judging.smallest_class is not None and judging.smallest_class < fewest_of_class(asked.get("percent", 100)):
            judges.append(None)
            too_few.append(column.name)
        else:
            judges.append(asked)
            own += [column.name] if name else []
    notes = [f"Judged on the labels of the training data for want of others: {', '.join(own)}."] if own else []
    hint = " ".join(f"--downstream.{name} DATA" for name in missing)
    notes += [f"Left empty for want of data: {hint}."] if missing else []
    if too_few:
        words = f"the smallest class has {judging.smallest_class} pictures, too few to take so small a part of them"
        notes.append(f"Left empty: {', '.join(too_few)}; {words}.")
    if judging.known == "nothing":
        notes.append("The data has no labels: there is no accuracy, and the verdict alone decides.")
    elif judging.known == "several":
        notes.append("Pictures have several labels: mean average precision stands in place of top-1.")
    if any(judge and "data" in judge for judge in judges):
        notes.append("What evaluations on other data sets take is in none of the times.")
    return judges, notes


def fewest_of_class(percent: float) -> float:
    """Pictures that a class needs, so that a part of those that are not held out for judging is one at least.

    A part is rounded, so half a picture is enough; four standard deviations more, for what is held out is drawn.
    """
    half = 50 / percent / (1 - HELD_OUT)
    return half + 4 * math.sqrt(half)


def pictures_needed(jobs: Sequence[Job], count: int, smallest_class: int | None) -> int:
    """Of so many pictures, how many at least have to be drawn for all classes to be judged by all jobs."""
    percents = [judge["percent"] for job in jobs for judge in job.judged if "percent" in judge]
    if smallest_class is None or not percents:
        return 1
    return min(count, math.ceil(count * fewest_of_class(min(percents)) / smallest_class))


def fill_in(settings: Mapping[str, Any], base: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """A cell's settings with all that depends on the data and the backbone at hand.

    Raises `InputError` where nothing is known to stand beside the backbone.
    """
    usual = resolve({**base, "method": settings["method"]})
    filled = dict(settings)
    for option in WIDTH_OPTIONS:
        if option in filled:
            filled[option] = scaled_widths(str(filled[option]), output_width(usual, option) / PUBLISHED_WIDTH)
    if "batch_size" in filled:
        filled["batch_size"] = max(FEWEST, round(filled["batch_size"] * usual.batch_size / PUBLISHED_BATCH))
    if filled.get("predictor") == "simsiam":
        width = next(output_width(usual, option) for option in WIDTH_OPTIONS if hasattr(usual, option))
        filled["predictor"] = f"{width // 4}-{width}"
    if isinstance(filled.get("views"), str):
        filled["views"] = sized_views(view_recipe(usual, image_size), filled["views"], image_size)
    if filled.get("backbone2") in ("larger", "vit"):
        if usual.backbone not in BESIDE:
            raise InputError(
                f"no larger network and no transformer is known to stand beside {usual.backbone}: "
                f"take --backbone {', '.join(BESIDE)}"
            )
        filled["backbone2"] = BESIDE[usual.backbone][filled["backbone2"]]
    if other := filled.pop("as_in", None):
        theirs = resolve({**base, "method": other})
        filled |= {"backbone2": text_encoder_of(theirs), "epochs": theirs.epochs, "batch_size": theirs.batch_size}
        filled["views"] = [view.to_dict() for view in view_recipe(theirs, image_size)]
    return filled


def sized_views(recipe: Sequence[View], kind: str, image_size: int) -> list[dict[str, Any]]:
    """The views of full size of a recipe ("large"), or those and small ones ("multicrop"): SwAV's where it has none."""
    full = max(view.size for view in recipe)
    large = [view for view in recipe if view.size == full]
    small = [view for view in recipe if view.size < full]
    if kind == "multicrop" and not small:
        published = [view for view in swav_views(image_size) if view.size < image_size]
        small = [
            dataclasses.replace(large[0], size=view.size, scale=view.scale, count=view.count) for view in published
        ]
    return [view.to_dict() for view in (large if kind == "large" else [*large, *small])]


def output_width(settings: SimpleNamespace, option: str) -> int:
    """The last of the widths that an option says. Raises `InputError` where it says none."""
    widths = str(getattr(settings, option))
    if not re.fullmatch(r"\d+(-\d+)*", widths):
        raise InputError(f"{option} is {widths or 'empty'}: what this table compares is in proportion to its widths")
    return int(widths.split("-")[-1])


def scaled_widths(widths: str, factor: float) -> str:
    """'8192-8192-8192' at a factor of 1/16 is '512-512-512'."""
    return "-".join(str(max(FEWEST, round(int(width) * factor))) for width in widths.split("-"))


def _name(table: Table, cell: Cell, taken: set[str]) -> str:
    """A folder's name from what the slide says of a row and, where there are several, of the column."""
    alone = [row.name for row in table.rows].count(cell.row.name) == 1
    shown = [f"{key}{value}" if str(value)[0].isdigit() else key for key, value in cell.row.shown.items() if not alone]
    columns_differ = any(column.settings or column.methods for column in table.columns)
    words = [cell.row.name, *shown, *([cell.column.name] if columns_differ else [])]
    name = re.sub(r"\W+", "-", " ".join(words).lower()).strip("-")
    return name if name not in taken else f"{name}-{sum(each.startswith(name) for each in taken) + 1}"
