"""`fullrank compare`: runs side by side, and in what their settings differ."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Column as GridColumn
from rich.table import Table as Grid

from fullrank.errors import InputError
from fullrank.evaluation.repeated import SPREAD, mean_of
from fullrank.files import plain
from fullrank.report.sections import Row
from fullrank.report.wording import MISSING, SCORES, duration, with_spread
from fullrank.runs.folder import Run
from fullrank.runs.settings import FREE
from fullrank.tables.line import in_one_unit
from fullrank.tables.outcome import MEASURED, Outcome, outcome_of
from fullrank.tables.page import CURVES, UNTRAINED_MARK, curve_chart, render, shared_out, toned, untrained
from fullrank.tables.written import Fitted, coloured, in_short, markdown_table, write_all

# Settings that say nothing of what a run is.
ASIDE = {*FREE, "seed", "recipe"}
EMPTY: tuple[Any, ...] = (None, "", {}, [])  # settings that say nothing
QUOTED = ("top1", "map", "box_ap50", "i2t_r1")  # of an evaluation's scores the first that it has


@dataclass(frozen=True)
class Compared:
    """Runs side by side.

    Attributes:
        names: of the lines.
        differing: names of the settings that are not the same in all, with their values, one a line.
        outcomes: what the runs of each line gave.
        evaluations: scores by what was evaluated, one a line, None where one was not.
    """

    names: tuple[str, ...]
    differing: Mapping[str, Sequence[Any]]
    outcomes: tuple[Outcome, ...]
    evaluations: Mapping[str, Sequence[tuple[float, float | None] | None]]

    @property
    def headings(self) -> list[str]:
        """Of the columns: settings come last, since there may be many."""
        measured = ["kNN", "Y", "Z", "rank Y", "rank Z", "time", "memory"]
        return ["run", *self.evaluations, *measured, *self.differing]

    def cells(self, line: int) -> list[str]:
        """Of one line."""
        outcome = self.outcomes[line]
        knn = f"{outcome.measured('untrained')} → {outcome.measured('knn')}"
        return [
            *[self.title(line), *self.scores(line), knn],
            *[outcome.verdict("Y"), outcome.verdict("Z"), outcome.measured("Y_rank"), outcome.measured("Z_rank")],
            *[duration(outcome.values["seconds"]), outcome.memory, *self.settings(line).values()],
        ]

    def title(self, line: int) -> str:
        """Its name, and how many runs it stands for where they are several."""
        seeds = self.outcomes[line].seeds
        return self.names[line] if seeds == 1 else f"{self.names[line]} ({seeds} seeds)"

    def settings(self, line: int) -> dict[str, str]:
        """Those of one line that differ between lines, in words."""
        found = {
            name: (views_in_words(values) if name == "views" else values)[line]
            for name, values in self.differing.items()
        }
        return {name: MISSING if value in EMPTY else words_of(value) for name, value in found.items()}

    def scores(self, line: int) -> list[str]:
        """What the evaluations of one line gave."""
        found = [each[line] for each in self.evaluations.values()]
        return [MISSING if score is None else with_spread(*score, 1) for score in found]

    @property
    def rows(self) -> list[list[str]]:
        """All cells."""
        return [self.cells(line) for line in range(len(self.names))]

    @property
    def named(self) -> list[tuple[str, Outcome]]:
        """What runs gave, with their names."""
        return list(zip(self.names, self.outcomes, strict=True))

    @property
    def notes(self) -> list[str]:
        """What the reader has to know."""
        spread = max(outcome.seeds for outcome in self.outcomes) > 1
        found = [
            "kNN: top-1 of 20 neighbours on Y, before the arrow that of the same network untrained.",
            "Y, Z: verdicts on the representation and the embedding; rank: the effective one of each.",
            "Time is that of training alone, memory its peak.",
        ]
        found += ["± is the standard deviation over seeds."] if spread else []
        settings = {str([values[line] for values in self.differing.values()]) for line in range(len(self.names))}
        again = len(settings) < len(self.names)
        return found + (["Lines of the same settings are runs of the same seed."] if again else [])

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        lines = [
            {"name": name, "settings": {key: values[line] for key, values in self.differing.items()}}
            | {"evaluations": {key: scores[line] for key, scores in self.evaluations.items()}}
            | self.outcomes[line].to_dict()
            for line, name in enumerate(self.names)
        ]
        return plain({"runs": lines})

    def render(self) -> Any:
        """The table on a terminal."""
        return Group(Fitted(self.wide, self.narrow), *self.notes)

    def wide(self) -> Grid:
        """The runs, a line each."""
        grid = Grid(*(GridColumn(escape(head), overflow="fold") for head in self.headings), box=box.SIMPLE_HEAD)
        for row in self.rows:
            grid.add_row(*map(coloured, row))
        return grid

    def narrow(self) -> Group:
        """The same where there is little room: what belongs together one below the other, settings below the table."""
        heads = ["run", *self.evaluations, "kNN", "Y, Z", "rank", "time"]
        columns = [GridColumn(escape(head), overflow="fold", no_wrap=head == "Y, Z") for head in heads]
        grid = Grid(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        said = []
        for line, outcome in enumerate(self.outcomes):
            of_both = [in_short(outcome.verdict(each)).replace(" (", "\n(") for each in ("Y", "Z")]
            ranks = [outcome.measured(f"{each}_rank") for each in ("Y", "Z")]
            knn = f"{outcome.measured('untrained')} →\n{outcome.measured('knn')}"
            facts = f"{in_one_unit(outcome.values['seconds'])}\n{outcome.memory}"
            name = escape(self.title(line))
            grid.add_row(name, *self.scores(line), knn, "\n".join(of_both), "\n".join(ranks), facts)
            own = [f"{key} {value}" for key, value in self.settings(line).items() if value != MISSING]
            said += [f"[bold]{name}[/]: {escape(', '.join(own))}"] if own else []
        return Group(grid, *said, *([""] if said else []))

    def markdown(self) -> str:
        """The table as Markdown."""
        return "\n\n".join([markdown_table(self.headings, self.rows), *self.notes]) + "\n"

    def csv(self) -> str:
        """One row a line, every measured number in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        values = [*MEASURED, *(f"{name}{SPREAD}" for name in MEASURED)]
        judged = [f"{name}{end}" for name in self.evaluations for end in ("", SPREAD)]
        writer.writerow(["run", *self.differing, *judged, *values, "verdict_Y", "verdict_Z", "seeds"])
        for line, outcome in enumerate(self.outcomes):
            found_here = [each[line] or ("", None) for each in self.evaluations.values()]
            scores = ["" if number is None else number for both in found_here for number in both]
            settings = ["" if words == MISSING else words for words in self.settings(line).values()]
            found = [outcome.values.get(name, "") for name in values]
            verdicts = [outcome.verdict("Y"), outcome.verdict("Z"), outcome.seeds]
            writer.writerow([self.names[line], *settings, *scores, *found, *verdicts])
        return text.getvalue()

    def page(self) -> str:
        """The table as a page, with the curves of the runs."""
        charts = [
            curve_chart(f"{measure}-{part}", "", measure, *zip(*((run, name) for name, run in chosen), strict=True))
            for measure in CURVES
            for part, chosen in enumerate(shared_out(self.named))
        ]
        bars = [
            Row(name, one.values["knn"] / 100, one.measured("knn"), "own", "", [untrained(one)])
            for name, one in zip(self.names, self.outcomes, strict=True)
            if "knn" in one.values
        ]
        return render(
            page_title=f"{len(self.names)} runs",
            name=f"{len(self.names)} runs",
            heading="Side by side",
            lead="",
            notices=[],
            facts=[],
            how="What each run gave, and in what the settings differ.",
            heads=self.headings,
            rows=[list(map(toned, row)) for row in self.rows],
            compared=bars,
            compared_how=f"kNN accuracy of the representation; {UNTRAINED_MARK}",
            ticks=["untrained"],
            curves=[one for one in charts if one],
            curves_how="Measured on the batches of training; several seeds are one line, their mean.",
            settings=[],
            settings_how="",
            settings_heads=[],
            explanations=self.notes,
        )


def views_in_words(lines: Sequence[Sequence[Mapping[str, Any]] | None]) -> list[str | None]:
    """Views of each line by what is not the same in all views of all lines; None where they are the method's own."""
    every = [view for views in lines for view in views or ()]
    names = dict.fromkeys(name for view in every for name in view)
    own = [name for name in names if any(view.get(name) != every[0].get(name) for view in every)]

    def said(view: Mapping[str, Any]) -> str:
        return " ".join(f"{name} {words_of(view[name])}" for name in own if name in view) or "as the others"

    def joined(views: Sequence[Mapping[str, Any]]) -> str:
        groups = [(words, len(list(alike))) for words, alike in groupby(map(said, views))]
        return "; ".join(words if count == 1 else f"{count} of {words}" for words, count in groups)

    return [joined(views) if views else None for views in lines]


def words_of(value: Any) -> str:
    """A setting in a table, numbers to six digits."""
    value = float(f"{value:.6g}") if isinstance(value, float) else value
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def compare_runs(folders: Sequence[str | Run], output: str | None) -> Compared:
    """What `fullrank.compare` does."""
    given: dict[Path, Run] = {}
    for each in folders:
        run = each if isinstance(each, Run) else Run(each)
        given.setdefault(run.folder.resolve(), run)
    for run in given.values():
        if not run.summary.get("finished"):
            raise InputError(f"{run.folder} is not finished: `fullrank train --resume --output {run.folder}`")
    lines = by_settings(list(given.values()))
    settings = [said_of(line[0]) for line in lines]
    names = list(dict.fromkeys(name for each in settings for name in each))
    differing = {
        name: values
        for name, values in ((name, [each.get(name) for each in settings]) for name in names)
        if any(value != values[0] for value in values)
    }
    found = Compared(
        names_of([line[0].folder for line in lines]),
        differing,
        tuple(outcome_of([run.folder for run in line]) for line in lines),
        evaluations_of(lines),
    )
    if output:
        write_all(found, found.page(), Path(output), "compare")
    return found


def by_settings(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of the same settings on one line, each seed once: the same seed again says nothing of spread."""
    lines: dict[tuple[str, int], list[Run]] = {}
    met: Counter[tuple[str, int]] = Counter()
    for run in runs:
        said, seed = json.dumps(plain(said_of(run)), sort_keys=True), run.settings.seed
        lines.setdefault((said, met[said, seed]), []).append(run)
        met[said, seed] += 1
    return list(lines.values())


def names_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of paths, as many of each as make it differ from all others."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    taken = [1] * len(parts)
    while True:
        names = tuple(str(Path(*each[-count:])) for each, count in zip(parts, taken, strict=True))
        alike = [number for number, name in enumerate(names) if names.count(name) > 1]
        if not alike:
            return names
        for number in alike:
            taken[number] += 1


def said_of(run: Run) -> dict[str, Any]:
    """The settings that make a run what it is."""
    return {name: value for name, value in vars(run.settings).items() if name not in ASIDE and name != "method_options"}


def evaluations_of(lines: Sequence[Sequence[Run]]) -> dict[str, list[tuple[float, float | None] | None]]:
    """Quoted scores by what was evaluated: means over the runs of a line that all have it."""
    by_run = [[{title_of(each): each for each in run.summary.get("evaluations", [])} for run in line] for line in lines]
    titles = dict.fromkeys(title for line in by_run for run in line for title in run)
    found: dict[str, list[tuple[float, float | None] | None]] = {}
    for title in titles:
        for line in by_run:
            scores = [run[title]["scores"] for run in line if title in run]
            means = mean_of(scores, SPREAD) if len(scores) == len(line) else {}
            quoted = next((name for name in QUOTED if name in means), None)
            entry = (means[quoted], means.get(f"{quoted}{SPREAD}")) if quoted else None
            found.setdefault(title, []).append(entry)
    return {title: values for title, values in found.items() if any(value is not None for value in values)}


def title_of(evaluation: Mapping[str, Any]) -> str:
    """What was evaluated, on what, in few words."""
    scores = evaluation.get("scores") or {}
    quoted = next((SCORES.get(name, name) for name in QUOTED if name in scores), "")
    words = [evaluation["protocol"], evaluation.get("variant", ""), quoted, f"on {evaluation['data']}"]
    return " ".join(filter(None, words))
