"""What the commands print: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fullrank import distributed
from fullrank.collapse.remedies import NOTHING

STYLES = {"healthy": "bold green", "dimensional collapse": "bold yellow", "complete collapse": "bold red"}
MEASURES = ("effective_rank", "participation_ratio", "stable_rank", "std", "correlation")


def log_console() -> Console:
    """Where a command speaks while it works: standard error, so that standard output stays for results."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def show(name: str, result: Any, *, as_json: bool) -> int:
    """Print what command `name` gave, once for all processes of a run; returns the exit code."""
    if distributed.rank() > 0:
        return 0
    if as_json:
        print(json.dumps(as_object(name, result)))
    else:
        own = {} if hasattr(result, "render") else SHOWN
        own.get(name, show_plain)(result)
    if name == "reproduce" and getattr(result, "failed", None):
        return 1
    return 2 if name == "check" and result.problems else 0


def as_object(name: str, result: Any) -> dict[str, Any]:
    """One JSON object. A diagnosis puts the verdict that matters first: that of Z, or of the only array."""
    from fullrank.runs.folder import plain

    if name == "diagnose":
        verdicts = {each: verdict.to_dict() for each, verdict in result.items()}
        chosen = verdicts.get("Z") or next(iter(verdicts.values()))
        measures = chosen.get("measures", {})
        return plain(
            {
                **{key: value for key, value in chosen.items() if key != "measures"},
                **measures,
                "embeddings": verdicts,
            }
        )
    return plain(result if isinstance(result, dict) else result.to_dict())


def show_plain(result: Any) -> None:
    """Print words as they are, and what can show itself."""
    if hasattr(result, "render"):
        Console(highlight=False, soft_wrap=True).print(result.render())
    else:
        print(result)


def show_run(run: Any) -> None:
    """What training bought, the verdict, and where things are."""
    from fullrank.runs.folder import BACKBONE, REPORT

    summary, console = run.summary, Console(highlight=False, soft_wrap=True)
    knn = summary.get("knn")
    if knn:
        table = Table(f"kNN accuracy on the labels of {knn['queries']:,} pictures", "%", box=None)
        for key, words in (
            ("trained", "trained representation"),
            ("untrained", "untrained backbone"),
            ("raw_pixels", "raw pixels"),
            ("chance", "largest class"),
        ):
            table.add_row(words, f"{knn[key]:.1f}", style="bold" if key == "trained" else "")
        console.print(table)
    for name, verdict in summary.get("verdict", {}).items():
        print_verdict(console, name, verdict)
    warnings = summary.get("warnings") or []
    if warnings:
        console.print(f"warned of in training ({len(warnings)}): {warnings[-1]['message']}", markup=False)
    for what, name in (("report ", REPORT), ("weights", BACKBONE)):
        if (run.folder / name).exists():
            console.print(f"{what}  {run.folder / name}")


def print_verdict(console: Console, name: str, verdict: dict[str, Any]) -> None:
    """One verdict in words."""
    style = STYLES[verdict["verdict"]]
    console.print(f"{escape(name)}  [{style}]{verdict['verdict']}[/]  {escape(verdict['reason'])}")
    if verdict["remedy"] != NOTHING:
        console.print(f"   what to try: {verdict['remedy']}", markup=False)
    for remark in verdict.get("remarks", []):
        console.print(f"   worth knowing: {remark}", markup=False)


def show_verdicts(verdicts: dict[str, Any]) -> None:
    """A diagnosis as words and a table of its measures."""
    console = Console(highlight=False, soft_wrap=True)
    for name, verdict in verdicts.items():
        print_verdict(console, name, verdict.to_dict())
    table = Table("measure", *verdicts, box=None)
    for measure in dict.fromkeys(key for verdict in verdicts.values() for key in verdict.measures):
        table.add_row(measure, *(f"{verdict.measures.get(measure, float('nan')):.4g}" for verdict in verdicts.values()))
    console.print(table)


def show_transfer(console: Console, result: dict[str, Any]) -> None:
    """One row a data set, one column a protocol; what is missing below."""
    from fullrank.report.wording import score, spread

    protocols = [name.removesuffix(" score") for row in result["rows"] for name in row if name.endswith(" score")]
    columns = list(dict.fromkeys(protocols))
    table = Table("transfer", *columns, "learnt from", "judged", box=None)
    for row in result["rows"]:
        cells = [f"{score(row, name, 2)} {row[f'{name} score']}" if name in row else "-" for name in columns]
        table.add_row(row["data"], *cells, str(row.get("n_train", "-")), str(row.get("n_test", "-")))
    console.print(table)
    for note in spread(result):
        console.print(note, markup=False)
    for name, reason in result["missing"].items():
        console.print(f"missing: {name}: {reason}", markup=False)


def show_evaluation(result: dict[str, Any]) -> None:
    """An evaluation: the scores that are quoted, then those of every setting."""
    from fullrank.report.wording import SCORES, score, spread

    console = Console(highlight=False, soft_wrap=True)
    if "rows" in result:
        show_transfer(console, result)
        return
    columns = [name for name in result["scores"] if name in SCORES]
    table = Table(f"{result['protocol']}, %", *(SCORES[name] for name in columns), box=None)
    table.add_row("", *(score(result["scores"], name, 2) for name in columns), style="bold")
    for name, scores in result.get("details", {}).items():
        if len(result["details"]) > 1 and set(columns) & set(scores):
            table.add_row(name, *(score(scores, each, 2) if each in scores else "" for each in columns))
    console.print(table)
    learnt = f"{result['n_train']} images of {result['data']} learnt from, " if result["n_train"] else ""
    classes = f", {result['classes']} classes" if result["classes"] else ""
    console.print(f"{learnt}{result['n_test']} of {result['test_data']} judged{classes}", markup=False)
    for note in spread(result):
        console.print(note, markup=False)
    for note in result.get("notes", []):
        console.print(f"note: {note}", markup=False)


# How the results of commands are shown that cannot show themselves.
SHOWN = {"train": show_run, "diagnose": show_verdicts, "evaluate": show_evaluation}
