"""How tables are written: in Markdown, in colour, and all their forms into a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement

from fullrank.files import unwritable, write_text
from fullrank.runs.folder import Run
from fullrank.tables.outcome import Outcome, course_of
from fullrank.terminal import STYLES


class Writable(Protocol):
    """A table in all its forms."""

    def markdown(self) -> str:
        """As Markdown."""

    def csv(self) -> str:
        """As CSV."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""

    @property
    def named(self) -> Sequence[tuple[str, Outcome]]:
        """What its runs gave, each with the name that it has in the table."""


@dataclass(frozen=True)
class Fitted:
    """A table on a terminal: the wide one where there is room for it."""

    wide: Callable[[], RenderableType]
    narrow: Callable[[], RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One of the two."""
        wide = self.wide()
        needed = Measurement.get(console, options.update(max_width=10_000), wide).maximum
        yield wide if needed <= options.max_width else self.narrow()


def write_all(found: Writable, page: str, folder: Path, stem: str) -> None:
    """A table as Markdown, CSV, JSON and page, and the curves of its runs as CSV."""
    make_folder(folder)
    write_text(folder / f"{stem}.md", found.markdown())
    write_text(folder / f"{stem}.csv", found.csv())
    write_text(folder / f"{stem}.json", json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / f"{stem}.html", page)
    write_text(folder / "curves.csv", curves_csv(found.named))


def curves_csv(named: Sequence[tuple[str, Outcome]]) -> str:
    """The live measures of runs over training: a row each time that one of them was looked at, every number in full."""
    rows = [
        {"run": name, "seed": Run(folder).settings.seed, **row}
        for name, outcome in named
        for folder in outcome.runs
        for row in course_of(Path(folder))
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def make_folder(folder: Path) -> None:
    """Raises `InputError` where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(words).replace('|', '/') for words in line)} |" for line in lines)


def coloured(words: str) -> str:
    """A verdict in its colour, other words as they are."""
    colour = next((colour for verdict, colour in STYLES.items() if words.startswith(verdict)), None)
    return escape(words) if colour is None else f"[{colour}]{escape(words)}[/]"


def in_short(verdict: str) -> str:
    """A verdict in one or two words, in its colour."""
    return coloured(verdict).replace(" collapse", "")
