"""A filled table as one self-contained HTML page, with the curves of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.report.figures import Chart, Curve, line_chart
from fullrank.report.page import fill
from fullrank.report.sections import Row
from fullrank.report.wording import HEADLINES
from fullrank.tables.filled import TOO_SHORT, Filled
from fullrank.tables.line import Line
from fullrank.tables.outcome import Outcome, course_of

# What is drawn over training where a table is no figure of its own.
CURVES = ("Z_std", "Z_effective_rank", "Y_effective_rank", "knn")
TITLES = {"std": "Mean standard deviation", "effective_rank": "Effective rank", "correlation": "Mean correlation"}
SECTIONS = {
    "table": "Table",
    "compared": "Beside each other",
    "curves": "Over training",
    "settings": "Settings",
    "explanations": "What stands for what",
}
MOST_CURVES = 10  # in one chart: so many colours there are
TOP1 = "top1"  # the score that kNN has too
PAPER = "paper"  # the mark of its number on a bar
UNTRAINED_MARK = "the mark is the same network untrained."


@dataclass(frozen=True)
class Words:
    """What stands in a cell, and in which colour."""

    words: str
    tone: str = ""


def build_page(filled: Filled) -> str:
    """The page as text."""
    table = filled.table
    failed = [f"{name} failed: {reason}." for name, reason in filled.failed.items()]
    missing = sum(line.outcome is None for line in filled.lines)
    notices = [
        *failed,
        *([f"{missing} of {len(filled.lines)} cells have no run yet."] if missing and not failed else []),
    ]
    notices += [TOO_SHORT] if filled.too_short else []
    notices += [f"{words}." for words in filled.differences]
    charts = [*curves_of(filled)]
    compared = bars_of(filled)
    marked = any(name == PAPER for row in compared for name, _, _ in row.ticks)
    return render(
        page_title=f"{table.name}: {table.question}",
        name=table.name,
        heading=table.question,
        lead=f"{filled.in_one_line}." if filled.in_one_line else "",
        notices=notices,
        facts=list(filled.circumstances.items()),
        how=f"What runs here gave{' beside what the paper says' if table.has_numbers else ''}.",
        heads=filled.headings,
        rows=[list(map(toned, row)) for row in filled.rows],
        compared=compared,
        compared_how=f"kNN accuracy of the representation; {marks_of(filled) if marked else UNTRAINED_MARK}",
        ticks=["untrained", *([PAPER] if marked else [])],
        curves=charts,
        curves_how="Measured on the batches of training; several seeds are one line, their mean.",
        settings=filled.settings,
        settings_how=f"{filled.settings_how}.",
        settings_heads=["run", "settings"],
        explanations=filled.explanations,
    )


def render(**content: Any) -> str:
    """A page of a table."""
    contents = [(key, name) for key, name in SECTIONS.items() if key == "table" or content.get(key)]
    hover = {"charts": {one.key: one.hover for one in content["curves"]}, "heat_maps": {}, "map": None}
    template = (files("fullrank.tables") / "page.html").read_text(encoding="utf-8")
    return fill(template, hover, contents=contents, **content)


def toned(words: str) -> Words:
    """A verdict in its colour, other words as they are."""
    return Words(words, next((verdict.replace(" ", "-") for verdict in HEADLINES if words.startswith(verdict)), ""))


def bars_of(filled: Filled) -> list[Row]:
    """kNN of every run beside the untrained network and, where there is one, a top-1 of the paper."""
    rows = []
    for outcome, lines in filled.by_run:
        values = outcome.values
        if "knn" not in values:
            continue
        ticks: list[tuple[str, float | None, str]] = [untrained(outcome)]
        top1 = next((line.cell for line in lines if line.cell.column.score == TOP1), None)
        if top1 is not None and top1.value is not None:
            ticks.append((PAPER, top1.value / 100, str(top1.published)))
        name, missing = filled.names_of(lines), lines[0].missing
        rows.append(Row(name, values["knn"] / 100, outcome.measured("knn"), "own", missing, ticks))
    return rows


def marks_of(filled: Filled) -> str:
    """What the two marks on a bar are."""
    first = next(column.name for column in filled.table.columns if column.score == TOP1)
    column = "" if filled.columns_differ else f" in the column {first}"
    return (
        f"the marks are the same network untrained (dotted) and the paper's number{column}, which is no kNN "
        f"({filled.table.measured})."
    )


def untrained(outcome: Outcome) -> tuple[str, float, str]:
    """The mark of the untrained network on a bar."""
    value = outcome.values["untrained"]
    return "untrained", value / 100, f"{value:.1f}"


def curves_of(filled: Filled) -> Iterable[Chart]:
    """The live measures of the runs over training: one chart a measure, and a row where its columns differ."""
    measures = filled.table.curves or CURVES
    groups: dict[str, list[tuple[str, Outcome]]] = {}
    for outcome, lines in filled.by_run:
        row = lines[0].cell.row
        group = f"{row.name} {' '.join(row.shown)}".strip() if filled.columns_differ else ""
        cells = [line.cell.column.name if filled.columns_differ else short_name(filled, line) for line in lines]
        groups.setdefault(group, []).append(("; ".join(dict.fromkeys(cells)), outcome))
    for group, members in groups.items():
        for part, chosen in enumerate(shared_out(members)):
            labels, outcomes = zip(*chosen, strict=True)
            for measure in measures:
                chart = curve_chart(f"{group}-{part}-{measure}", group, measure, outcomes, labels)
                if chart:
                    yield chart


def shared_out(curves: Sequence[Any]) -> list[Sequence[Any]]:
    """As many curves to a chart as there are colours, and about as many to each."""
    charts = -(-len(curves) // MOST_CURVES)
    ends = [len(curves) * part // charts for part in range(charts + 1)]
    return [curves[begin:end] for begin, end in pairwise(ends)]


def short_name(filled: Filled, line: Line) -> str:
    """A row in few words: its name, or what the slide says beside it where some have the same."""
    name = line.cell.row.name
    if filled.row_of(line) == name:
        return name
    return " ".join(f"{key}{value}" for key, value in line.cell.row.shown.items())


def curve_chart(key: str, group: str, measure: str, outcomes: Sequence[Outcome], labels: Sequence[str]) -> Chart | None:
    """One measure of several runs."""
    curves = []
    for number, (outcome, label) in enumerate(zip(outcomes, labels, strict=True)):
        across, values = mean_course([Path(run) for run in outcome.runs], measure)
        curves.append(Curve(label, f"c{number}", across, values))
    title = ": ".join(filter(None, [group, measure_title(measure)]))
    height = 168 if len(curves) < 6 else 260
    return line_chart(key, title, curves, x_label="epoch", height=height, from_zero=True, log=False)


def measure_title(measure: str) -> str:
    """'Z_std' as a heading."""
    branch, _, name = measure.partition("_")
    return "kNN accuracy, %" if measure == "knn" else f"{TITLES.get(name, name)} of {branch}"


def mean_course(folders: Sequence[Path], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and the mean of a measure over runs, as far as all of them go."""
    courses = [[(row["epoch"], row[measure]) for row in course_of(folder) if measure in row] for folder in folders]
    shortest = min(map(len, courses), default=0)
    if not shortest:
        return np.zeros(0), np.zeros(0)
    cut = np.array([course[:shortest] for course in courses])
    return cut[0, :, 0], cut[:, :, 1].mean(0)
