"""A cell of a table with what its runs gave, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fullrank.report.wording import MISSING, counted, duration, with_spread
from fullrank.tables.expand import WIDTH_OPTIONS
from fullrank.tables.outcome import Outcome
from fullrank.tables.talk import COLLAPSE, Cell, in_words

SCALED = (*WIDTH_OPTIONS, "batch_size", "backbone2")


@dataclass(frozen=True)
class Line:
    """A cell: what was published, and what runs here gave.

    Attributes:
        cell: of the table.
        ours: its number here and the standard deviation over seeds; None where there is none.
        outcome: of its runs; None where none has finished.
        failure: what a run said that did not finish.
        agrees: with what was published, in kind; None where that cannot be said.
        differs: in what it differs.
        settings: of its runs, beside those of all.
        seeds: runs that were asked for.
    """

    cell: Cell
    ours: tuple[float, float | None] | None
    outcome: Outcome | None
    failure: str
    agrees: bool | None
    differs: str
    settings: Mapping[str, Any]
    seeds: int

    @property
    def name(self) -> str:
        """Row, what the slide says of it, and column, in words."""
        shown = " ".join(f"{key}{'' if value == '✓' else f' {value}'}" for key, value in self.cell.row.shown.items())
        return ", ".join(filter(None, [self.cell.row.name, shown, self.cell.column.name]))

    @property
    def here(self) -> str:
        """What its runs have in place of what the slide compares, where that is another width, batch or network."""
        asked = self.cell.settings
        values = [self.settings[name] for name in SCALED if name in asked and self.settings[name] != asked[name]]
        return ", ".join(map(in_brief, values))

    @property
    def own_words(self) -> str:
        """The number with its spread and unit, and of how many runs it is where some are missing."""
        if self.ours is not None:
            words = with_spread(*self.ours, 1 if self.cell.column.unit == "%" else 3)
            words += "" if self.cell.column.unit in ("%", "") else f" {self.cell.column.unit}"
            return f"{words} ({self.missing})" if self.missing else words
        words = "failed" if self.failure else MISSING
        return f"{words} ({self.missing} done)" if self.missing else words

    @property
    def paper(self) -> str:
        """What was published, with its unit."""
        words, unit = in_words(self.cell.published), self.cell.column.unit
        return words if self.cell.value is None or unit in ("%", "") else f"{words} {unit}"

    @property
    def missing(self) -> str:
        """'1 of 3 runs' where not all that were asked for have finished; nothing where none has."""
        done = 0 if self.outcome is None else self.outcome.seeds
        return f"{done} of {counted(self.seeds, 'runs')}" if 0 < done < self.seeds else ""

    @property
    def is_judged(self) -> bool:
        """Whether it is said how it agrees with what was published."""
        return self.agrees is not None or bool(self.differs)

    @property
    def looks_unfinished(self) -> bool:
        """Whether its runs neither collapsed nor learned."""
        return self.outcome is not None and self.outcome.collapsed is False and self.outcome.gained is False

    def measured(self, name: str, digits: int = 1) -> str:
        """A value of its runs with its spread."""
        return MISSING if self.outcome is None else self.outcome.measured(name, digits)

    @property
    def time(self) -> str:
        """That training took."""
        return MISSING if self.outcome is None else duration(self.outcome.values["seconds"])

    @property
    def short_time(self) -> str:
        """The same in one unit, where there is little room."""
        return MISSING if self.outcome is None else in_one_unit(self.outcome.values["seconds"])

    @property
    def memory(self) -> str:
        """The peak of its runs."""
        return MISSING if self.outcome is None else self.outcome.memory

    def verdict(self, name: str) -> str:
        """Of Y or Z."""
        return MISSING if self.outcome is None else self.outcome.verdict(name)

    @property
    def agreement(self) -> str:
        """Whether it agrees with what was published."""
        if self.agrees is None:
            return "in part" if self.differs else MISSING
        return "yes" if self.agrees else "no"


def in_brief(value: Any) -> str:
    """A setting in few letters: layers of one width by it."""
    parts = str(value).split("-")
    return parts[0] if len(set(parts)) == 1 else str(value)


def in_one_unit(seconds: float) -> str:
    """36180 -> '10.1 h'; the largest unit of which there are more than one and a half."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds > 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def kind_of(cell: Cell) -> str:
    """What was published of a cell, in kind."""
    return "collapse" if cell.published == COLLAPSE else "no collapse"
