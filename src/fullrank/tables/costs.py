"""What the runs of a table take: a step of each is timed, one short run is tried as a whole, and all fit a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import json
import math
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.data.memory import available_memory
from fullrank.errors import InputError
from fullrank.evaluation.splits import HELD_OUT
from fullrank.report.wording import duration
from fullrank.runs.build import text_encoder_of
from fullrank.runs.settings import resolve
from fullrank.tables.expand import TRAINING, Job, pictures_needed
from fullrank.tables.processes import LOOK, command_of, environment_of, why
from fullrank.training.estimate import Opened, seconds_of_step
from fullrank.training.finetune import recipe_of
from fullrank.training.gain import FINAL

if TYPE_CHECKING:
    from fullrank.tables.plan import Plan

# Of a budget: what is left over for a machine that is busier later than while it was measured.
USED = 0.8
# Settings that say how much of a term there is: they change nothing of what a step takes.
AMOUNTS = ("invariance", "variance", "covariance", "learning_rate", "weight_decay", "temperature")
# What has to be left, of the time for training that the fewest pictures would leave, for all to be used, or a subset.
WHOLE_FROM, SHARE = 0.6, 0.5
FEWEST_BATCHES = 4  # of the largest batch, in an epoch of a subset
PRECISE = 1e-4  # of the epochs that fit a budget
TRIED = 512  # pictures of a trial at the least


@dataclass(frozen=True)
class Trial:
    """What a run takes beside its steps: `fixed` seconds, and so many for every picture; and its peak memory, bytes."""

    fixed: float
    per_picture: float
    memory: float = 0.0


def time_steps(plan: Plan, opened: Opened, check: Callable[[], None]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of a step of every job, and what jobs say that the data is nothing for.

    Jobs that differ in amounts alone are timed once. `check` is called before each, and may end it all with an error.
    Raises `InputError` where no job can take the data.
    """
    known: dict[str, float] = {}
    times, refused = {}, {}
    for job in plan.jobs:
        kind = {key: value for key, value in job.settings.items() if key not in AMOUNTS}
        kind["regularize"] = bool(kind.get("regularize"))
        key = json.dumps(kind, sort_keys=True)
        check()
        try:
            if key not in known:
                known[key] = seconds_of_step(resolve({**plan.base, **job.settings}), opened)
            times[job.name] = known[key]
        except InputError as error:
            refused[job.name] = str(error)
            if len(refused) == len(plan.jobs):
                raise
    return times, refused


def try_out(plan: Plan, count: int, given_up: threading.Event) -> Trial:
    """A first run of one step and all that comes after, on few pictures and on more of them.

    What trains networks to judge them is left out: it is counted by its steps. Once it is `given_up` it is ended.

    Raises `InputError` with what it said where it fails: then so would every other.
    """
    first = plan.jobs[0]
    quick = tuple(judge for judge in first.judged if judge["protocol"] not in TRAINING and "data" not in judge)
    first = dataclasses.replace(first, settings={**first.settings, "steps": 1}, judged=quick)
    fewest = min(count, max(resolve({**plan.base, **first.settings}).batch_size, TRIED))
    most = min(count, 4 * fewest)
    sizes = [fewest, most] if most > fewest else [most]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        began = time.monotonic()
        dataclasses.replace(plan, jobs=(first,)).write(folder)
        command = [*command_of(folder, first, plan.seed), *map(str, sizes)]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment_of(plan.threads), **pipes)
        said = None
        while said is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, said = process.communicate(timeout=LOOK)
            if given_up.is_set():
                process.kill()
        if process.returncode:
            raise InputError(f"a short run of {first.name} failed: {why(process.returncode, said)}")
        whole = time.monotonic() - began
        tried = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    times = tried["seconds"]
    start = whole - sum(times)
    slope = max(0.0, (times[-1] - times[0]) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else 0.0
    return Trial(max(0.0, start + times[0] - slope * sizes[0]), slope, tried["memory"])


def slots_in_memory(slots: int, trial: Trial) -> int:
    """How many of so many runs fit the memory that is free, by the peak of the one that was tried."""
    return max(1, min(slots, int(available_memory() // max(trial.memory, 1.0))))


def total_seconds(plan: Plan, count: int, trial: Trial, epochs: float | None) -> dict[str, float]:
    """Of a run of each job on so many pictures."""
    return {job.name: beside(plan, job, count, trial) + training(plan, job, count, epochs) for job in plan.jobs}


def beside(plan: Plan, job: Job, count: int, trial: Trial) -> float:
    """Seconds of a run apart from its steps."""
    batch = resolve({**plan.base, **job.settings}).batch_size
    forward = plan.step[job.name] / batch / 6  # of a picture: a step is two views there and back, which is thrice that
    measured = forward * 2 * min(sum(FINAL), count)  # both networks, at the end
    passes = sum(passes_of(judge) for judge in job.judged if "data" not in judge)
    return trial.fixed + trial.per_picture * count + measured + forward * passes * count


def passes_of(judge: Mapping[str, Any]) -> float:
    """How often an evaluation that trains the network passes over the pictures; a step back counts two."""
    if judge["protocol"] != "finetune":
        return 0.0
    learnt = judge.get("percent", 100) / 100 * (1 - HELD_OUT)
    return (3 * learnt + HELD_OUT) * recipe_of("vicreg", judge.get("percent", 100)).epochs


def training(plan: Plan, job: Job, count: int, epochs: float | None) -> float:
    """Seconds of a run's steps; an epoch of captions is one of their pairs with pictures."""
    settings = resolve({**plan.base, **job.settings})
    items = round(count * (plan.captions if text_encoder_of(settings) else 1))
    steps = (epochs or settings.epochs) * (items // settings.batch_size)
    return max(1, int(steps)) * plan.step[job.name]


def makespan(seconds: Iterable[float], slots: int, begun: Sequence[float] = ()) -> float:
    """Until the last of some runs ends, where each begins as soon as a slot is free, in this order.

    Args:
        seconds: of each run.
        slots: runs at once.
        begun: seconds that are left of runs that go on already.
    """
    ends = [*begun, *[0.0] * (slots - len(begun))]
    heapq.heapify(ends)
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends, default=0.0)


def in_order(seconds: Sequence[float], slots: int) -> list[int]:
    """In which order runs begin: as they stand, or the longest first where that ends sooner by more than a tenth."""
    longest_first = sorted(range(len(seconds)), key=lambda number: -seconds[number])
    sooner = makespan([seconds[number] for number in longest_first], slots)
    return longest_first if makespan(seconds, slots) > 1.1 * sooner else list(range(len(seconds)))


def whole_table(total: Iterable[float], seeds: int, slots: int) -> float:
    """Seconds of all runs of a table."""
    each = [seconds for seconds in total for _ in range(seeds)]
    return makespan([each[number] for number in in_order(each, slots)], slots)


def refuse_hopeless(plan: Plan, trial: Trial, seconds: float) -> None:
    """Raises `InputError` where so many seconds are too short even for runs that train on nothing."""
    least = whole_table([trial.fixed] * len(plan.jobs), plan.seeds, plan.slots)
    if least > seconds:
        raise InputError(
            f"the budget is too short for {len(plan.jobs) * plan.seeds} runs: their beginning and what is measured "
            f"after them take about {duration(least / USED)} here, and training comes on top"
        )


def fit_budget(plan: Plan, count: int, trial: Trial, seconds: float) -> tuple[float, int]:
    """Epochs and pictures of every run, so that the whole table takes so many seconds.

    All pictures where `WHOLE_FROM` of the time for training is left that the fewest would leave, else half of them, a
    quarter, and so on: what a run takes whatever it is given is no reason for fewer.

    Raises `InputError` where not even the fewest fit.
    """
    largest = max(resolve({**plan.base, **job.settings}).batch_size for job in plan.jobs)
    fewest = min(count, max(FEWEST_BATCHES * largest, pictures_needed(plan.jobs, count, plan.judging.smallest_class)))

    def whole(samples: int, epochs: float) -> float:
        steps = [epochs * training(plan, job, samples, 1.0) for job in plan.jobs]
        others = [beside(plan, job, samples, trial) for job in plan.jobs]
        return whole_table([sum(pair) for pair in zip(steps, others, strict=True)], plan.seeds, plan.slots)

    samples, most = count, seconds - whole(fewest, 0)
    while samples > fewest:
        share = WHOLE_FROM if samples == count else SHARE
        if seconds - whole(samples, 0) >= share * most and whole(samples, 1) <= seconds:
            break
        samples = max(fewest, samples // 2)
    needed = whole(samples, 1)
    if needed > seconds:
        raise InputError(
            f"the budget is too short for {len(plan.jobs) * plan.seeds} runs: an epoch of {samples:,} pictures each "
            f"and what is measured after it take about {duration(needed / USED)} here"
        )
    low, high = 1.0, 2.0
    while whole(samples, high) <= seconds:
        low, high = high, 2 * high
    while high - low > PRECISE * low:
        middle = (low + high) / 2
        low, high = (middle, high) if whole(samples, middle) <= seconds else (low, middle)
    return (math.floor(100 * low) / 100 if low < 10 else float(math.floor(low))), samples
