"""What protocols said of the run's network, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullrank.report import wording
from fullrank.report.content import ReportData
from fullrank.report.sections import cell


def evaluations(data: ReportData) -> dict[str, Any] | None:
    """A row an evaluation: its scores, those of every setting and class, and what its reader has to know."""
    entries = data.summary.get("evaluations") or []
    judged = [one for one in entries if "scores" in one]
    rows = [
        {
            "name": ", ".join(filter(None, [one["protocol"], one.get("variant"), one["data"]])),
            "scores": [
                (wording.SCORES[key], wording.score(one["scores"], key))
                for key in one["scores"]
                if key in wording.SCORES
            ],
            "samples": f"{one['n_train']:,} learnt from, {one['n_test']:,} judged"
            if one["n_train"]
            else f"{one['n_test']:,} judged",
            "parts": [(of, scores) for of, scores in _parts(one) if len(scores) > 1],
            "notes": [*wording.spread(one), *map(str, one.get("notes") or [])],
        }
        for one in judged
    ]
    tables = [_transfer(one) for one in entries if "rows" in one]
    return {"rows": rows, "tables": tables} if entries else None


def _parts(one: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The first score of every setting - numbers of neighbours, variants, seeds - and of every class, best first."""
    first, details = next(iter(one["scores"]), ""), one.get("details") or {}
    settings = [(str(name), wording.score(scores, first)) for name, scores in details.items() if first in scores]
    classes = sorted((one.get("by_class") or {}).items(), key=lambda each: -each[1])
    return [("settings", settings), ("classes", [(name, f"{score:.1f}") for name, score in classes])]


def _transfer(one: Mapping[str, Any]) -> dict[str, Any]:
    """The table of several data sets, and what is missing in it."""
    names = [name.removesuffix(" score") for row in one["rows"] for name in row if name.endswith(" score")]
    columns = list(dict.fromkeys(names))
    rows = [
        [cell(row["data"])]
        + [
            f"{wording.score(row, name)} {wording.SCORES.get(row[f'{name} score'], '')}"
            if name in row
            else wording.MISSING
            for name in columns
        ]
        + [cell(row.get("n_train")), cell(row.get("n_test"))]
        for row in one["rows"]
    ]
    missing = [f"missing: {name}: {reason}" for name, reason in one.get("missing", {}).items()]
    notes = [*wording.spread(one), *missing]
    return {"columns": ["data", *columns, "learnt from", "judged"], "rows": rows, "notes": notes}
