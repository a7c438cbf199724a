"""A table with its own numbers beside the published ones: on a terminal, as Markdown, as CSV and as plain values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Column as GridColumn
from rich.table import Table as Grid

from fullrank.files import plain
from fullrank.report.wording import MISSING, counted, duration, with_spread
from fullrank.runs.folder import Run
from fullrank.tables.expand import WIDTH_OPTIONS, judges_of
from fullrank.tables.outcome import MEASURED, Outcome, agreement, outcome_of, score_of
from fullrank.tables.plan import Plan, settings_in_words
from fullrank.tables.talk import COLLAPSE, Cell, Table, in_words, open_table
from fullrank.tables.work import is_done, run_folder
from fullrank.tables.written import Fitted, coloured, markdown_table

SCALED = (*WIDTH_OPTIONS, "batch_size", "backbone2")
TOO_SHORT = "Most runs neither collapsed nor learned: they may be too short to tell. Give a larger --budget."


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
    """

    cell: Cell
    ours: tuple[float, float | None] | None
    outcome: Outcome | None
    failure: str
    agrees: bool | None
    differs: str
    settings: Mapping[str, Any]

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
        """The number with its spread."""
        if self.ours is None:
            return "failed" if self.failure else MISSING
        return with_spread(*self.ours, 1 if self.cell.column.unit == "%" else 3)

    @property
    def looks_unfinished(self) -> bool:
        """Whether its runs neither collapsed nor learned."""
        return self.outcome is not None and not self.outcome.collapsed and self.outcome.gained is False

    def measured(self, name: str, digits: int = 1) -> str:
        """A value of its runs with its spread."""
        return MISSING if self.outcome is None else self.outcome.measured(name, digits)

    @property
    def memory(self) -> str:
        """The peak of its runs."""
        words = self.measured("peak_memory")
        return words if words == MISSING else f"{words} GiB"

    def verdict(self, name: str) -> str:
        """Of Y or Z."""
        return MISSING if self.outcome is None else self.outcome.verdict(name)

    @property
    def agreement(self) -> str:
        """Whether it agrees with what was published."""
        if self.agrees is None:
            return "in part" if self.differs else MISSING
        return "yes" if self.agrees else "no"


@dataclass(frozen=True)
class Filled:
    """A table of the talk with runs behind its cells.

    Attributes:
        table: as it was published.
        plan: of its runs.
        lines: one for every cell that can be.
        folder: where the runs are.
        failed: runs that did not finish, with the reason.
    """

    table: Table
    plan: Plan
    lines: tuple[Line, ...]
    folder: Path
    failed: Mapping[str, str]

    @property
    def seeds(self) -> int:
        """Runs of the same settings."""
        return self.plan.seeds

    @cached_property
    def differences(self) -> list[str]:
        """What is different from what was published, and in which cells."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            if line.differs:
                found.setdefault(f"{line.differs.rstrip('.')} (published: {kind_of(line.cell)})", []).append(
                    self.name_of(line)
                )
        return [f"{'; '.join(names)}: {words}" for words, names in found.items()]

    def name_of(self, line: Line) -> str:
        """Of a cell, without its column where there is but one."""
        return line.name if len(self.table.columns) > 1 else line.name.removesuffix(f", {line.cell.column.name}")

    @property
    def is_scaled(self) -> bool:
        """Whether what is compared was brought to another scale."""
        return any(line.here for line in self.lines)

    @property
    def in_one_line(self) -> str:
        """How many cells agree."""
        judged = [line for line in self.lines if line.agrees is not None or line.differs]
        agreeing = sum(line.agrees is True for line in judged)
        return f"{agreeing} of {len(judged)} cells agree with the paper on collapse or none" if judged else ""

    @property
    def too_short(self) -> bool:
        """Whether most runs look unfinished."""
        return sum(line.looks_unfinished for line in self.lines) > len(self.lines) / 2

    @property
    def circumstances(self) -> dict[str, str]:
        """On what, with what and when the numbers were measured."""
        first = next((line.outcome for line in self.lines if line.outcome), None)
        if first is None:
            return {}
        summary = Run(first.runs[0]).summary
        machine, versions = summary["hardware"], summary["versions"]
        said = {"data": f"{summary['data']}, {summary['images']:,} pictures", "backbone": summary["backbone"]}
        said["seeds"] = f"{self.seeds}, from {self.plan.seed} on"
        threads = counted(machine["threads"], "threads")
        said["hardware"] = f"{machine['device']}, {threads} a run, {self.plan.slots} at once"
        said["precision"] = summary["settings"]["precision"]
        said["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
        dates = sorted({Run(run).summary["date"] for line in self.lines if line.outcome for run in line.outcome.runs})
        return said | {"date": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"}

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        cells = [
            {"row": line.cell.row.name, **line.cell.row.shown, "column": line.cell.column.name}
            | {"published": line.cell.published, "settings": line.settings}
            | {
                "ours": line.ours and line.ours[0],
                "ours_std": line.ours and line.ours[1],
                "unit": line.cell.column.unit,
            }
            | {"agrees": line.agrees, "differs": line.differs, "failure": line.failure}
            | {"outcome": line.outcome and line.outcome.to_dict()}
            for line in self.lines
        ]
        said: dict[str, Any] = {"table": self.table.name, "question": self.table.question, "source": self.table.source}
        said |= {"seeds": self.seeds, "epochs": self.plan.epochs, "samples": self.plan.samples}
        return plain(said | self.circumstances | {"cells": cells, "failed": self.failed, "folder": str(self.folder)})

    def render(self) -> Any:
        """The table on a terminal."""
        below = [self.in_one_line] if self.in_one_line else []
        below += [f"differs: {words}" for words in self.differences]
        below += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        below += [TOO_SHORT] if self.too_short else []
        below += [*self.plan.notes, *(["± is the standard deviation over seeds."] if self.seeds > 1 else [])]
        return Group(escape(self.table.question), Fitted(self.grid), *map(escape, below))

    def grid(self, *, narrow: bool) -> Grid:
        """The cells, a line each; where that is too wide, what belongs together one below the other."""
        several = ["column"] if len(self.table.columns) > 1 else []
        both = GridColumn("Y, Z", min_width=len("dimensional"))
        measured = [both, "time"] if narrow else ["Y", "Z", "time", "memory"]
        heads = ["row", *several, "ours", "paper", "kNN", *measured, "agrees"]
        grid = Grid(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for line in self.lines:
            row = line.name.removesuffix(f", {line.cell.column.name}") + (f" ({line.here})" if line.here else "")
            name = [row, line.cell.column.name] if several else [row]
            knn = [f"{line.measured('untrained')} →", line.measured("knn")]
            verdicts = [in_short(line.verdict(each)) for each in ("Y", "Z")]
            taken = MISSING if line.outcome is None else f"{line.outcome.values['seconds']:.0f} s"
            costs = [taken, line.memory]
            facts = ["\n".join(pair) for pair in (verdicts, costs)] if narrow else [*verdicts, *costs]
            before = [*name, line.own_words, in_words(line.cell.published), ("\n" if narrow else " ").join(knn)]
            grid.add_row(*map(escape, before), *facts, line.agreement)
        return grid

    def markdown(self) -> str:
        """The table and all that a reader of its numbers has to know, as Markdown."""
        parts = [f"# {self.table.name}", self.table.question, markdown_table(self.headings, self.rows)]
        if self.in_one_line:
            parts.append(f"{self.in_one_line}.")
        parts += ["\n".join(f"- {words}." for words in self.differences)] if self.differences else []
        parts += (
            ["\n".join(f"- {name} failed: {reason}." for name, reason in self.failed.items())] if self.failed else []
        )
        parts += [TOO_SHORT] if self.too_short else []
        parts += self.explanations
        circumstances = [[name, words] for name, words in self.circumstances.items()]
        parts.append(markdown_table(["", ""], circumstances))
        parts += [f"{self.settings_how}:", markdown_table(["run", "settings"], self.settings)]
        return "\n\n".join(filter(None, parts)) + "\n"

    @property
    def headings(self) -> list[str]:
        """Of the columns."""
        return headings(self.table, scaled=self.is_scaled)

    @property
    def rows(self) -> list[list[str]]:
        """All cells in words."""
        return [cells_of(line, self.table, scaled=self.is_scaled) for line in self.lines]

    @property
    def settings_how(self) -> str:
        """Those of all runs, and a heading for those of each."""
        common = settings_in_words(self.plan.in_common)
        return (f"Settings of all runs: {common}. " if common else "") + "Those of each beside the data's recipe"

    @property
    def settings(self) -> list[list[str]]:
        """Of the runs of each cell, beside those of all."""
        return [[self.name_of(line), self.plan.own_words(line.settings)] for line in self.lines]

    @property
    def explanations(self) -> list[str]:
        """What words and numbers stand for."""
        said = [f"{name}: {words}." for name, words in self.table.shown.items()]
        said += [f"{each.name}: {each.explained}." for each in self.table.columns if each.explained]
        spread = "± is the standard deviation over seeds. " if self.seeds > 1 else ""
        said.append(
            f"{spread}kNN is top-1 of 20 neighbours on Y, before it that of the same network untrained. A published "
            "collapse agrees where Y or Z is a complete collapse by verdict and kNN is not above the untrained "
            "network's by two standard errors; any other number where there is no complete collapse and kNN is above "
            "it. In part: verdict and kNN say different things. Without labels the verdict alone decides."
        )
        measured = self.table.measured
        return [" ".join(said), *self.table.notes, *self.plan.notes, f"Published: {self.table.source}; {measured}."]

    def csv(self) -> str:
        """One row a cell, every number in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = list(self.table.shown)
        values = [*MEASURED, "images_per_second", "epochs", *self.table.curves]
        spreads = [f"{name}_std" for name in values] if self.seeds > 1 else []
        head = ["row", *names, "column", "published", "ours", "ours_std", "unit", *values, *spreads]
        writer.writerow([*head, "verdict_Y", "verdict_Z", "agrees", "differs", "failure", "seeds", "settings"])
        for line in self.lines:
            row, outcome = line.cell.row, line.outcome
            found = outcome.values if outcome else {}
            ours = line.ours or ("", "")
            writer.writerow(
                [row.name, *(row.shown.get(name, "") for name in names), line.cell.column.name]
                + [in_words(line.cell.published), ours[0], "" if ours[1] is None else ours[1], line.cell.column.unit]
                + [found.get(name, "") for name in [*values, *spreads]]
                + [line.verdict("Y"), line.verdict("Z"), line.agreement, line.differs, line.failure]
                + [outcome.seeds if outcome else 0, settings_in_words(line.settings)]
            )
        return text.getvalue()


def in_brief(value: Any) -> str:
    """A setting in few letters: layers of one width by it."""
    parts = str(value).split("-")
    return parts[0] if len(set(parts)) == 1 else str(value)


def kind_of(cell: Cell) -> str:
    """What was published of a cell, in kind."""
    return "collapse" if cell.published == COLLAPSE else "no collapse"


def headings(table: Table, *, scaled: bool) -> list[str]:
    """Of the columns behind what a slide shows of a row."""
    several = ["column"] if len(table.columns) > 1 else []
    curves = [name.replace("_", " ") for name in table.curves]
    here = ["here"] if scaled else []
    return [
        "row",
        *here,
        *table.shown,
        *several,
        *["ours", "published", "agrees", "kNN", "Y", "Z"],
        *curves,
        *["rank Z", "time", "memory"],
    ]


def cells_of(line: Line, table: Table, *, scaled: bool) -> list[str]:
    """Of one line, under `headings`."""
    unit = "" if line.cell.column.unit in ("%", "") else f" {line.cell.column.unit}"
    here = [line.here] if scaled else []
    shown = [str(line.cell.row.shown.get(name, "")) for name in table.shown]
    several = [line.cell.column.name] if len(table.columns) > 1 else []
    seconds = line.outcome.values["seconds"] if line.outcome else None
    knn = f"{line.measured('untrained')} → {line.measured('knn')}"
    return [
        *[line.cell.row.name, *here, *shown, *several, line.own_words + unit, in_words(line.cell.published)],
        *[line.agreement, knn, line.verdict("Y"), line.verdict("Z")],
        *(line.measured(name, 3) for name in table.curves),
        *[line.measured("Z_rank"), MISSING if seconds is None else duration(seconds)],
        line.memory,
    ]


def in_short(verdict: str) -> str:
    """A verdict in one or two words, in its colour."""
    return coloured(verdict).replace(" collapse", "")


def fill(plan: Plan, folder: Path, seeds: Sequence[int], failed: Mapping[str, str]) -> Filled:
    """The table with what its runs have given so far."""
    table = open_table(plan.table)
    judges, _ = judges_of(table, plan.downstream)
    jobs = {place: job for job in plan.jobs for place in job.cells}
    outcomes: dict[str, Outcome] = {}
    for job in plan.jobs:
        done = [run_folder(folder, job, seed) for seed in seeds if is_done(folder, job, seed)]
        if done:
            outcomes[job.name] = outcome_of(done)
    lines = []
    for number, cell in enumerate(table.cells()):
        place = divmod(number, len(table.columns))
        if place not in jobs:
            continue
        job = jobs[place]
        outcome = outcomes.get(job.name)
        names = [run_folder(folder, job, seed).name for seed in seeds]
        failure = next((failed[name] for name in names if name in failed), "")
        ours = score_of(cell, judges[place[1]], outcome) if outcome else None
        agrees, differs = agreement(cell, outcome) if outcome else (None, "")
        lines.append(Line(cell, ours, outcome, failure, agrees, differs, job.settings))
    return Filled(table, plan, tuple(lines), folder, failed)
