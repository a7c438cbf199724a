"""What a table has taken: the seconds of every call that carried out runs of it, kept beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from fullrank.files import write_text
from fullrank.report.wording import duration

CALLS = "calls.json"
KEEP = 5.0  # seconds between two writes: what a kill takes away at the most


class Call:
    """The call that goes on.

    Args:
        folder: of the table.
        began: when, by `time.monotonic`.
    """

    def __init__(self, folder: Path, began: float) -> None:
        self._path = folder / CALLS
        self._before = seconds_of_calls(folder)
        self._began = began
        self._kept = began

    def keep(self) -> None:
        """Write down how long it has gone on."""
        self._kept = time.monotonic()
        write_text(self._path, json.dumps([*self._before, round(self._kept - self._began, 1)]) + "\n")

    def keep_now_and_then(self) -> None:
        """The same, unless that was a moment ago."""
        if time.monotonic() - self._kept >= KEEP:
            self.keep()


def seconds_of_calls(folder: Path) -> list[float]:
    """Of each call so far that had runs to carry out."""
    path = folder / CALLS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def taken_in_words(calls: Sequence[float], budget: float | None) -> str:
    """How long calls took together, and of what; nothing where no call is known."""
    if not calls:
        return ""
    several = f" in {len(calls)} calls" if len(calls) > 1 else ""
    given = f", of the {duration(budget)} that were given" if budget else ""
    return f"{duration(sum(calls))}{several}{given}"
