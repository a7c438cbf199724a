"""Carrying out a plan: what is not yet done, each run in a process of its own, over the devices at hand."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from fullrank.errors import InputError, Interrupted
from fullrank.report.wording import counted, duration
from fullrank.tables.costs import makespan
from fullrank.tables.expand import Job
from fullrank.tables.plan import Plan
from fullrank.tables.processes import LOOK, command_of, environment_of, why
from fullrank.tables.taken import Call, seconds_of_calls, taken_in_words
from fullrank.tables.work import is_done, run_folder

LOG_END = 4000  # characters of a log in which its last words are looked for


@dataclass
class Running:
    """A run that goes on."""

    job: Job
    seed: int
    slot: int
    process: subprocess.Popen
    began: float


def carry_out(
    plan: Plan, folder: Path, seeds: Sequence[int], say: Callable[[str], None], *, since: float | None = None
) -> dict[str, str]:
    """Do what is not yet done; returns the runs that failed with the reason of each.

    A run that fails leaves the others as they are. Raises `Interrupted` when a signal asked for the end: the runs have
    then saved where they stand, and the same call goes on from there.

    Args:
        plan: of the table.
        folder: where its runs are.
        seeds: of every run.
        say: gets a line for every run that ends.
        since: when the call began, by `time.monotonic`; now where it is left out.
    """
    waiting = deque((job, seed) for job, seed in plan.runs(seeds) if not is_done(folder, job, seed))
    count = len(plan.jobs) * len(seeds)
    if len(waiting) < count:
        say(f"{count - len(waiting)} of {count} runs are done already")
    running: list[Running] = []
    failed: dict[str, str] = {}
    ended: list[tuple[Job, float]] = []
    began = time.monotonic()
    call = Call(folder, since or began)
    with asked_to_stop() as asked:
        while (waiting or running) and not asked:
            free = set(range(plan.slots)) - {each.slot for each in running}
            while waiting and free:
                job, seed = waiting.popleft()
                running.append(start(plan, folder, job, seed, free.pop()))
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                name, done = run_folder(folder, each.job, each.seed).name, count - len(waiting) - len(running)
                seconds = time.monotonic() - each.began
                took = duration(seconds)
                if each.process.returncode == 0:
                    ended.append((each.job, seconds))
                    elapsed = [(one.job, time.monotonic() - one.began) for one in running]
                    left = seconds_left(plan, [job for job, _ in waiting], elapsed, ended)
                    say(f"{done} of {count}: {name}, {took}" + (f"; about {duration(left)} left" if left else ""))
                else:
                    failed[name] = why(each.process.returncode, end_of_log(folder, name))
                    say(f"{done} of {count}: {name} FAILED after {took}: {failed[name]}")
            call.keep_now_and_then()
            time.sleep(LOOK)
        if asked:
            say("stopping: runs save where they stand; a second Ctrl-C ends them at once")
            stop(running, asked)
            call.keep()
            left = len(waiting) + sum(each.process.returncode != 0 for each in running)
            raise Interrupted(f"stopped with {count - left} of {count} runs done; the same command goes on", asked[0])
    if ended or failed:
        call.keep()
        said = f"{counted(len(ended) + len(failed), 'runs')} in {duration(time.monotonic() - began)}"
        calls = seconds_of_calls(folder)
        if plan.fitted or len(calls) > 1:
            said += f"; with its plan the table took {taken_in_words(calls, plan.fitted)}"
        say(said)
    return failed


def stop(running: Sequence[Running], asked: Sequence[int]) -> None:
    """Ask runs to save and to end; once a second signal has come, end them where they stand."""
    for each in running:
        each.process.terminate()
    while any(each.process.poll() is None for each in running):
        if len(asked) > 1:
            for each in running:
                each.process.kill()
        time.sleep(LOOK)


def seconds_left(
    plan: Plan, waiting: Sequence[Job], running: Sequence[tuple[Job, float]], ended: Sequence[tuple[Job, float]]
) -> float:
    """Until the last run ends, at the pace of those that ended; with `running` and `ended` goes what each has taken."""
    pace = sum(seconds for _, seconds in ended) / sum(plan.total[job.name] for job, _ in ended)
    begun = [max(0.0, pace * plan.total[job.name] - seconds) for job, seconds in running]
    return makespan([pace * plan.total[job.name] for job in waiting], plan.slots, begun)


def start(plan: Plan, folder: Path, job: Job, seed: int, slot: int) -> Running:
    """Begin a run on one device; what it says goes to a log."""
    environment = environment_of(plan.threads)
    if plan.threads is None and torch.cuda.device_count() > 1:
        environment["CUDA_VISIBLE_DEVICES"] = visible_devices()[slot]
    log = folder / "logs" / f"{run_folder(folder, job, seed).name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = command_of(folder, job, seed)
    with open(log, "w", encoding="utf-8") as file:
        # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    return Running(job, seed, slot, process, time.monotonic())


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]


def end_of_log(folder: Path, name: str) -> str:
    """What a run said last."""
    return (folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-LOG_END:]


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that gets the number of a signal that asks for the end."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_other(plan: Plan, folder: Path) -> None:
    """Raises `InputError` where a folder holds another table, or this one of other settings."""
    before, now = Plan.read(folder).asked, plan.asked
    if before["table"] != now["table"]:
        raise InputError(f"{folder} holds the table {before['table']}, not {now['table']}: choose another --output")
    before, now = ({**each, **each["settings"]} for each in (before, now))
    for name in sorted({*before, *now} - {"settings"}):
        if before.get(name) != now.get(name):
            words = [in_words(name, each.get(name)) for each in (before, now)]
            raise InputError(
                f"{folder} holds a table with {name} {words[0]}, not {words[1]}: choose another --output, or add "
                "--overwrite, which deletes its runs"
            )


def in_words(name: str, value: Any) -> str:
    """An option as it would be given."""
    if value in (None, {}):
        return "left out"
    return duration(value) if name == "budget" else str(value)
