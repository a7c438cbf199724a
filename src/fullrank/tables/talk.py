"""A table of the talk as data: its question, its published numbers, and the settings of a run for every cell.

The files are in `recipes/talk`. A cell's settings are those of its row and of its column together; a column may say
others for a method (`methods`), as recipes do: what every method is given by `regularize`, VICReg has of its own.

Some values stand for what depends on the data, the backbone and the width at hand (`expand.py`): `predictor: simsiam`,
a predictor in the proportions of SimSiam's; `backbone2: larger` and `backbone2: vit`, a deeper network of the same kind
and a transformer; `views: large` and `views: multicrop`, the views without and with small ones; `as_in: vse`, what
another method has of views, text encoder, batch and length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml
from rich import box
from rich.console import Group
from rich.table import Column as GridColumn
from rich.table import Table as Grid

from fullrank.errors import unknown

FOLDER = resources.files("fullrank") / "recipes" / "talk"
ORDER = (
    *("imagenet", "downstream", "multimodal", "regularization", "weight-sharing", "coefficients", "normalization"),
    *("expander", "batch-size", "collapse-std", "collapse-covariance", "cost"),
)
"""As the talk has them."""
LINEAR = {"protocol": "linear"}  # what judges a run where a column says nothing else
COLLAPSE, IMPOSSIBLE = "collapse", "x"
NOT_SAID = "-"
MARK = "†"


@dataclass(frozen=True)
class Column:
    """One kind of number.

    Attributes:
        name: on the slide.
        explained: what it stands for, where the slide is short.
        settings: of the runs in this column.
        methods: in their place, for these methods.
        judge: options of `fullrank evaluate`.
        score: which of its scores, or what a run itself is asked for.
        unit: of the number.
    """

    name: str
    explained: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=lambda: LINEAR)
    score: str = "top1"
    unit: str = "%"


@dataclass(frozen=True)
class Row:
    """One thing that is compared.

    Attributes:
        name: on the slide.
        settings: of its runs.
        shown: what the slide says of it beside its name, such as the tricks that it has.
        published: a number a column; "collapse"; "x" for what cannot be; or None where the slide says nothing. A number
            may be followed by a mark: "69.3 †".
    """

    name: str
    settings: Mapping[str, Any]
    shown: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[float | str | None, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A row in a column, with the settings of its run."""

    row: Row
    column: Column
    published: float | str | None
    settings: Mapping[str, Any]

    @property
    def value(self) -> float | None:
        """The published number, without its mark; None for a collapse, and where there is none."""
        if self.published in (None, COLLAPSE, IMPOSSIBLE):
            return None
        return float(str(self.published).split()[0])


@dataclass(frozen=True)
class Table:
    """A table or figure.

    Attributes:
        name: by which it is asked for.
        question: what it answers.
        source: who published the numbers.
        measured: on what, and in which unit.
        columns: of numbers.
        rows: of things that are compared.
        shown: what the words mean that the slide puts beside a row's name.
        notes: what a reader of the numbers has to know.
        curves: of a figure, the measures that are drawn over training.
    """

    name: str
    question: str
    source: str
    measured: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    shown: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()

    def cells(self) -> Iterator[Cell]:
        """All of them, row by row."""
        for row in self.rows:
            for place, column in enumerate(self.columns):
                own = column.methods.get(row.settings["method"], column.settings)
                yield Cell(row, column, row.published[place] if row.published else None, {**row.settings, **own})

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        rows = [{"name": row.name, **row.shown, "published": list(row.published)} for row in self.rows]
        said: dict[str, Any] = {
            "name": self.name,
            "question": self.question,
            "source": self.source,
            "measured": self.measured,
        }
        said |= {"notes": list(self.notes), "curves": list(self.curves)}
        return said | {"columns": [column.name for column in self.columns], "rows": rows}

    @property
    def has_numbers(self) -> bool:
        """Whether anything was published of its cells, and not of its curves alone."""
        return any(row.published for row in self.rows)

    @property
    def explained(self) -> list[str]:
        """What the slide's short words and marks stand for."""
        found = [f"{name}: {words}" for name, words in self.shown.items()]
        found += [f"{each.name}: {each.explained}" for each in self.columns if each.explained]
        marked = any(MARK in str(number) for row in self.rows for number in row.published)
        found += [f"{MARK}: as on the slide, which does not explain it"] if marked else []
        crossed = any(IMPOSSIBLE in row.published for row in self.rows)
        return found + ([f"{IMPOSSIBLE}: no such run can be, as on the slide"] if crossed else [])

    def render(self) -> Any:
        """The published numbers on a terminal."""
        heads = [GridColumn(self.name, no_wrap=True)]  # what is too wide folds in the other columns
        heads += [GridColumn(name, overflow="fold") for name in (*self.shown, *(each.name for each in self.columns))]
        grid = Grid(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for row in self.rows:
            said = (str(row.shown.get(name, "")) for name in self.shown)
            grid.add_row(row.name, *said, *map(in_words, row.published))
        lines = [f"{self.measured[0].upper()}{self.measured[1:]}.", *self.explained, *self.notes]
        return Group(self.question, grid, *lines, f"Paper: {self.source}.")


@dataclass(frozen=True)
class Catalogue:
    """All tables and figures of the talk."""

    tables: tuple[Table, ...]

    def to_dict(self) -> dict[str, Any]:
        """Every name with its question."""
        return {table.name: table.question for table in self.tables}

    def render(self) -> Any:
        """A line each."""
        grid = Grid("name", "", "question", box=None)
        for table in self.tables:
            grid.add_row(table.name, "figure" if table.curves else "table", table.question)
        return grid


def in_words(published: float | str | None) -> str:
    """What stands in a cell."""
    return NOT_SAID if published is None else str(published)


def names() -> list[str]:
    """All tables and figures, as the talk has them."""
    return list(ORDER)


def open_table(name: str) -> Table:
    """A table or figure of the talk. Raises `InputError` for a name that does not exist."""
    if name not in ORDER:
        raise unknown("table", name, ORDER, listed=True)
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    content["columns"] = tuple(Column(**each) for each in content["columns"])
    content["rows"] = tuple(
        Row(**{**each, "published": tuple(each.get("published") or ())}) for each in content["rows"]
    )
    for several in ("notes", "curves"):
        content[several] = tuple(content.get(several) or ())
    return Table(name, **content)


def describe_tables(name: str | None = None) -> Catalogue | Table:
    """All tables and figures, or one. Raises `InputError` for a name that does not exist."""
    return Catalogue(tuple(map(open_table, ORDER))) if name is None else open_table(name)
