"""A table with its own numbers beside the published ones: on a terminal, as Markdown, as CSV and as plain values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Column as GridColumn
from rich.table import Table as Grid

from fullrank.files import plain
from fullrank.report.wording import counted
from fullrank.runs.folder import Run
from fullrank.runs.settings import FREE
from fullrank.tables.expand import judges_of
from fullrank.tables.line import Line, kind_of
from fullrank.tables.outcome import MEASURED, Outcome, agreement, outcome_of, score_of
from fullrank.tables.plan import TIMED, Plan, settings_in_words
from fullrank.tables.taken import seconds_of_calls, taken_in_words
from fullrank.tables.talk import Table, in_words, open_table
from fullrank.tables.work import is_trained, run_folder
from fullrank.tables.written import Fitted, in_short, markdown_table

ABOVE = "by two standard errors of the queries (what another seed would change is not in it)"
PROBE = "linear"  # what the number of a cell is where none was published
SAID = ("data", "backbone", "epochs", "samples", "precision")  # settings of which each has a fact of its own
FEWEST_STEPS = 100  # of a run, for it to tell anything
TOO_SHORT = (
    f"Most runs neither collapsed nor learned, or had fewer than {FEWEST_STEPS} steps: they may be too short to tell. "
    "Give a larger --budget, or more --epochs."
)


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
        """What is different from what was published, and in which runs."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.differs:
                found.setdefault(f"{line.differs.rstrip('.')} (paper: {kind_of(line.cell)})", []).append(line)
        return [f"{self.names_of(lines)}: {words}" for words, lines in found.items()]

    @property
    def columns_differ(self) -> bool:
        """Whether runs of the same row are others in every column, and not one that is judged in several ways."""
        return any(column.settings or column.methods for column in self.table.columns)

    def name_of(self, line: Line) -> str:
        """Of the runs of a cell: without its column where all columns share them."""
        row = self.row_of(line)
        return f"{row}, {line.cell.column.name}" if self.columns_differ else row

    def row_of(self, line: Line) -> str:
        """Of a row: with what the slide says of it where some have the same name."""
        names = [row.name for row in self.table.rows]
        alone = len({*names}) == len(names)
        return line.cell.row.name if alone else line.name.removesuffix(f", {line.cell.column.name}")

    def names_of(self, lines: Sequence[Line]) -> str:
        """Of the runs of several cells, each once."""
        return "; ".join(dict.fromkeys(map(self.name_of, lines)))

    @cached_property
    def by_run(self) -> list[tuple[Outcome, list[Line]]]:
        """What runs gave, each once, with the cells that they fill."""
        found: dict[tuple[str, ...], tuple[Outcome, list[Line]]] = {}
        for line in self.lines:
            if line.outcome:
                found.setdefault(line.outcome.runs, (line.outcome, []))[1].append(line)
        return list(found.values())

    @property
    def named(self) -> list[tuple[str, Outcome]]:
        """What runs gave, each once, with the names of the cells that they fill."""
        return [(self.names_of(lines), outcome) for outcome, lines in self.by_run]

    @property
    def is_scaled(self) -> bool:
        """Whether what is compared was brought to another scale."""
        return any(line.here for line in self.lines)

    @property
    def in_one_line(self) -> str:
        """How many cells agree, and how many in part: how many runs where one fills several."""
        judged = [[line for line in lines if line.is_judged] for _, lines in self.by_run]
        runs = [[line.agrees for line in lines] for lines in judged if lines]
        in_part = sum(None in agrees and False not in agrees for agrees in runs)
        of_seeds = f" of {self.seeds} seeds" if self.seeds > 1 else ""
        things = f"runs{of_seeds}" if any(len(lines) > 1 for lines in runs) else "cells"
        said = f"{sum(map(all, runs))} of {len(runs)} {things} agree with the paper on collapse or none"
        return (f"{said}, {in_part} in part" if in_part else said) if runs else ""

    @property
    def too_short(self) -> bool:
        """Whether most runs look unfinished."""
        short = [
            line.looks_unfinished or line.outcome.values.get("steps", FEWEST_STEPS) < FEWEST_STEPS
            for line in self.lines
            if line.outcome
        ]
        return sum(short) > len(self.lines) / 2

    @property
    def lengths(self) -> list[float]:
        """Epochs that runs had, each once, the fewest first."""
        return sorted({line.outcome.values["epochs"] for line in self.lines if line.outcome})

    @property
    def circumstances(self) -> dict[str, str]:
        """On what, with what and when the numbers were measured."""
        first = next((line.outcome for line in self.lines if line.outcome), None)
        if first is None:
            return {}
        summary = Run(first.runs[0]).summary
        machine, versions = summary["hardware"], summary["versions"]
        said = {"data": f"{summary['data']}, {summary['images']:,} pictures", "backbone": summary["backbone"]}
        said["epochs"] = " to ".join(f"{epochs:g}" for epochs in dict.fromkeys((self.lengths[0], self.lengths[-1])))
        own = {name: value for name, value in self.plan.base.items() if name not in {*FREE, *SAID}}
        said |= {"settings": settings_in_words(own)} if own else {}
        said["seeds"] = f"{self.seeds}, from {self.plan.seed} on"
        threads = counted(machine["threads"], "threads")
        said["hardware"] = f"{machine['device']}, {threads} a run, {self.plan.slots} at once"
        said["precision"] = summary["settings"]["precision"]
        said["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
        took = taken_in_words(seconds_of_calls(self.folder), self.plan.fitted)
        said |= {"took": took} if took else {}
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
        epochs = self.plan.epochs or max(self.lengths, default=None)
        numbers = {"seeds": self.seeds, "epochs": epochs, "samples": self.plan.samples}
        return plain(
            said | self.circumstances | numbers | {"cells": cells, "failed": self.failed, "folder": str(self.folder)}
        )

    def render(self) -> Any:
        """The table on a terminal."""
        below = [self.in_one_line] if self.in_one_line else []
        below += [f"differs: {words}" for words in self.differences]
        below += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        below += [TOO_SHORT] if self.too_short else []
        below += [*self.plan.notes, *self.key]
        return Group(
            escape(self.table.question),
            Fitted(partial(self.grid, narrow=False), partial(self.grid, narrow=True)),
            *map(escape, below),
        )

    @property
    def key(self) -> list[str]:
        """What stands for what in the table on a terminal, in few words."""
        spread = "; ± is the standard deviation over seeds" if self.seeds > 1 else ""
        number = (
            "ours, paper: the number here and there" if self.table.has_numbers else f"{PROBE}: top-1 of a probe on Y"
        )
        agreed = [
            f"agrees: on a complete collapse or none, by verdict and by whether kNN rose {ABOVE}.",
            f"in part: {self.in_part}.",
        ]
        return [
            f"{number}{spread}; kNN: top-1 of 20 neighbours on Y, untrained → trained.",
            "Y, Z: verdicts on the representation and the embedding; time: of training alone; memory: its peak.",
            *(agreed if self.table.has_numbers else []),
            *([f"{'; '.join(self.table.explained)}."] if self.table.explained else []),
        ]

    @property
    def in_part(self) -> str:
        """When cells agree in part."""
        split = ", or seeds disagree on a collapse without a majority" if self.seeds > 1 else ""
        return f"verdict and kNN say different things{split}"

    def grid(self, *, narrow: bool) -> Grid:
        """The cells, a line each; where that is too wide, what belongs together one below the other."""
        several = ["column"] if len(self.table.columns) > 1 else []
        measured = ["Y, Z", "time"] if narrow else ["Y", "Z", "time", "memory"]
        drawn = named_curves(self.table)
        measured = [*(name.replace("correlation", "corr.") if narrow else name for name in drawn), *measured]
        numbers = self.table.has_numbers
        heads = ["row", *several, *(["ours", "paper"] if numbers else [PROBE]), "kNN", *measured]
        heads += ["agrees"] if numbers else []
        columns = [GridColumn(each, overflow="fold", no_wrap=each == "Y, Z") for each in heads]
        grid = Grid(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for line in self.lines:
            row = self.row_of(line) if narrow else line.name.removesuffix(f", {line.cell.column.name}")
            row += f" ({line.here})" if line.here else ""
            name = [row, line.cell.column.name] if several else [row]
            knn = [f"{line.measured('untrained')} →", line.measured("knn")]
            verdicts = [in_short(line.verdict(each)) for each in ("Y", "Z")]
            facts = [*verdicts, line.time, line.memory]
            if narrow:
                facts = ["\n".join(verdicts).replace(" (", "\n("), f"{line.short_time}\n{line.memory}"]
            published = [line.paper] if numbers else []
            facts = [*(line.measured(each, 3) for each in self.table.curves), *facts]
            before = [*name, line.own_words, *published, ("\n" if narrow else " ").join(knn)]
            grid.add_row(*map(escape, before), *facts, *([line.agreement] if numbers else []))
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
        own = "of each run beside those of the data's recipe"
        return f"Settings of all runs: {common}. Those {own}" if common else f"Settings {own}"

    @property
    def settings(self) -> list[list[str]]:
        """Of each run, beside those of all."""
        said = [(self.name_of(line), self.plan.own_words(line.settings)) for line in self.lines]
        return list(map(list, dict.fromkeys(said)))

    @property
    def explanations(self) -> list[str]:
        """What words and numbers stand for."""
        said = [f"{words}." for words in self.table.explained]
        said += ["± is the standard deviation over seeds."] if self.seeds > 1 else []
        said += [] if self.table.has_numbers else [f"{PROBE.capitalize()} is top-1 of a probe on Y, %."]
        said.append("kNN is top-1 of 20 neighbours on Y, before it that of the same network untrained.")
        if self.table.has_numbers:
            said.append(
                "A collapse in the paper agrees where Y or Z is a complete collapse by verdict and kNN is not above "
                f"the untrained network's {ABOVE}; any other number where there is no complete collapse and kNN is "
                f"above it. In part: {self.in_part}. Without labels the verdict alone decides."
            )
        said.append("Time is that of training alone, memory its peak.")
        if any(column.score in TIMED for column in self.table.columns):
            said.append("Agreement is not judged of time and memory.")
        paper = f"Paper: {self.table.source}; {self.table.measured}."
        return [" ".join(said), *self.table.notes, *self.plan.notes, paper]

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


def headings(table: Table, *, scaled: bool) -> list[str]:
    """Of the columns behind what a slide shows of a row."""
    several = ["column"] if len(table.columns) > 1 else []
    here = ["here"] if scaled else []
    return [
        "row",
        *here,
        *table.shown,
        *several,
        *(["ours", "paper", "agrees"] if table.has_numbers else [PROBE]),
        *["kNN", "Y", "Z"],
        *named_curves(table),
        *["rank Z", "time", "memory"],
    ]


def named_curves(table: Table) -> list[str]:
    """Of a figure, what is drawn, in words."""
    return [name.replace("_", " ") for name in table.curves]


def cells_of(line: Line, table: Table, *, scaled: bool) -> list[str]:
    """Of one line, under `headings`."""
    here = [line.here] if scaled else []
    shown = [str(line.cell.row.shown.get(name, "")) for name in table.shown]
    several = [line.cell.column.name] if len(table.columns) > 1 else []
    knn = f"{line.measured('untrained')} → {line.measured('knn')}"
    compared = [line.paper, line.agreement] if table.has_numbers else []
    return [
        *[line.cell.row.name, *here, *shown, *several, line.own_words, *compared],
        *[knn, line.verdict("Y"), line.verdict("Z")],
        *(line.measured(name, 3) for name in table.curves),
        *[line.measured("Z_rank"), line.time, line.memory],
    ]


def fill(plan: Plan, folder: Path, seeds: Sequence[int], failed: Mapping[str, str]) -> Filled:
    """The table with what its runs have given so far."""
    table = open_table(plan.table)
    judges, _ = judges_of(table, plan.judging)
    jobs = {place: job for job in plan.jobs for place in job.cells}
    outcomes: dict[str, Outcome] = {}
    for job in plan.jobs:
        done = [run for run in (run_folder(folder, job, seed) for seed in seeds) if is_trained(run)]
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
        lines.append(Line(cell, ours, outcome, failure, agrees, differs, job.settings, len(seeds)))
    return Filled(table, plan, tuple(lines), folder, failed)
