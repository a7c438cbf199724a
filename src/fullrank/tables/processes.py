"""The process of a run of a table (`work.py`): how it is started, and why it ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fullrank.tables.expand import Job

LOOK = 0.1  # seconds between two looks at it


def command_of(folder: Path, job: Job, seed: int) -> list[str]:
    """What starts it."""
    return [sys.executable, "-m", "fullrank.tables.work", str(os.getpid()), str(folder), job.name, str(seed)]


def environment_of(threads: int | None) -> dict[str, str]:
    """What it is started with; no number of threads is named on a GPU."""
    if threads is None:
        return dict(os.environ)
    return os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def why(code: int, said: str) -> str:
    """Why it ended, from its exit status and what it said."""
    number = -code if code < 0 else code - 128  # a shell gives 128 and more
    if number in set(signal.Signals):
        name = signal.Signals(number).name
        return f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("fullrank: error: ") if lines else f"it ended with {code} and said nothing"
