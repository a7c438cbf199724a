"""One run of a table, in a process of its own: `python -m fullrank.tables.work PARENT FOLDER JOB SEED`.

A process each, so that a run that fails or is killed takes no other with it; it stops when PARENT, the number of the
process that started it, is gone. With numbers of pictures behind, it is a trial: what a run takes on so many is written
down, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fullrank import commands
from fullrank.errors import InputError, one_line
from fullrank.files import plain, write_text
from fullrank.machine import peak_memory
from fullrank.runs.folder import CHECKPOINT, CONFIG, SUMMARY, Run
from fullrank.tables.expand import Job
from fullrank.tables.plan import Plan

JUDGED = "judged.json"
SAVE_MINUTES = 1.0
LOOK = 0.5  # seconds between two looks at whether whoever started this process is still there


def run_folder(folder: Path, job: Job, seed: int) -> Path:
    """Where a run of a table is."""
    return folder / "runs" / f"{job.name}-seed{seed}"


def judge_key(options: Mapping[str, Any]) -> str:
    """By which the scores of an evaluation are kept."""
    return json.dumps(plain(dict(options)), sort_keys=True)


def judged(run: Path) -> dict[str, Any]:
    """The scores that a run has so far, by `judge_key`."""
    path = run / JUDGED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def is_trained(run: Path) -> bool:
    """Whether a run has come to its end."""
    return (run / CONFIG).is_file() and (run / SUMMARY).is_file() and bool(Run(run).summary.get("finished"))


def is_done(folder: Path, job: Job, seed: int) -> bool:
    """Whether a run has come to its end and has been judged."""
    run = run_folder(folder, job, seed)
    return is_trained(run) and not {judge_key(each) for each in job.judged} - set(judged(run))


def carry_out(settings: Mapping[str, Any], job: Job, run: Path) -> None:
    """Train from where the run stands, then judge it by what it has not been judged by.

    Raises `InputError` where it cannot be trained, or be judged by all.
    """
    if not is_trained(run):
        if run.exists() and not (run / CONFIG).is_file():
            shutil.rmtree(run)
        goes_on = (run / CHECKPOINT).is_file()
        how: dict[str, Any] = {"output": str(run), "save_minutes": SAVE_MINUTES, "logger": "none", "devices": 1}
        given: dict[str, Any] = {**settings, "resume": True} if goes_on else {**settings, "overwrite": run.exists()}
        commands.train(**given, **how)
    known = judged(run)
    refused: list[InputError] = []
    for options in job.judged:
        if judge_key(options) not in known:
            try:
                result = commands.evaluate(run, **options, device=device_of(settings))
            except InputError as error:  # the others may be had
                refused.append(error)
                continue
            known[judge_key(options)] = {name: result[name] for name in ("scores", "n_train", "n_test", "seconds")}
            write_text(run / JUDGED, json.dumps(plain(known), indent=1) + "\n")
    if refused:
        raise refused[0]


def device_of(settings: Mapping[str, Any]) -> str:
    """Where a run is judged."""
    return "cpu" if settings.get("accelerator") == "cpu" else "auto"


def try_sizes(settings: Mapping[str, Any], job: Job, folder: Path, sizes: list[int]) -> None:
    """Seconds of a run on each number of pictures and the peak of its memory, written beside the plan."""
    times = []
    for size in sizes:
        began = time.monotonic()
        carry_out({**settings, "samples": size}, job, folder / "runs" / str(size))
        times.append(time.monotonic() - began)
    tried = {"seconds": times, "memory": peak_memory(torch.device("cpu"))}
    write_text(folder / "trial.json", json.dumps(tried))


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits until no other process carries out the same run."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stop_when_left_alone(parent: int) -> None:
    """Ask this process to save and stop once the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Carry out one run; returns 0, 2 for what could not be done, or 128 + n when stopped by signal n."""
    parent, folder, name, seed, *sizes = arguments
    stop_when_left_alone(int(parent))
    plan = Plan.read(Path(folder))
    job = next(each for each in plan.jobs if each.name == name)
    settings = plan.settings_of(job, int(seed))
    try:
        if sizes:
            try_sizes(settings, job, Path(folder), list(map(int, sizes)))
        else:
            run = run_folder(Path(folder), job, int(seed))
            with alone(Path(folder) / "logs" / f"{run.name}.lock"):
                carry_out(settings, job, run)
    except InputError as error:
        print(f"fullrank: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "signal", signal.SIGINT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
