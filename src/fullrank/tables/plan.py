"""What a table will take: its runs, the time of each, and how long they may be for all to fit a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from rich import box
from rich.console import Group
from rich.table import Table as Grid

from fullrank.data.memory import available_memory
from fullrank.errors import InputError
from fullrank.files import plain, write_text
from fullrank.report.wording import duration
from fullrank.runs.settings import FREE, resolve
from fullrank.tables.expand import Job, expand
from fullrank.tables.talk import Table, open_table
from fullrank.training.estimate import Opened, open_few, seconds_of_step
from fullrank.training.gain import FINAL

PLAN = "plan.json"
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
# Of a budget: what is left over for a machine that is busier later than while it was measured.
USED = 0.9
# Settings that say how much of a term there is: they change nothing of what a step takes.
AMOUNTS = ("invariance", "variance", "covariance", "learning_rate", "weight_decay", "temperature")
TIMED = ("hours_per_100_epochs", "peak_memory")  # scores that say what a run takes
MEMORY = 3 << 30  # bytes that a run on a CPU may need
MOST_SLOTS = 8  # runs side by side on a CPU
WHOLE_FROM = 0.6  # all pictures are used where at least this share of a run's time is left for training
SHARE = 0.5  # the same of a subset
FEWEST_BATCHES = 4  # of the largest batch, in an epoch of a subset


@dataclass(frozen=True)
class Trial:
    """What a run takes beside its steps: `fixed` seconds, and so many for every picture."""

    fixed: float
    per_picture: float


@dataclass(frozen=True)
class Plan:
    """The runs of a table.

    Attributes:
        table: its name.
        base: settings of all runs.
        downstream: data sets for the columns that are judged on others than the runs' own.
        budget: seconds, where one was given.
        epochs: of every run; None for the recipe's.
        samples: pictures that every run is given; None for all.
        seed: the first.
        seeds: how many.
        jobs: a run each, for every seed.
        slots: runs that go on side by side.
        threads: of each, on a CPU; None where a GPU computes.
        step: seconds that an optimiser step of each job takes, by its name.
        total: seconds of a whole run of each.
        notes: what is left out and why.
    """

    table: str
    base: Mapping[str, Any]
    downstream: Mapping[str, str]
    budget: float | None
    epochs: float | None
    samples: int | None
    seed: int
    seeds: int
    jobs: tuple[Job, ...]
    slots: int
    threads: int | None = None
    step: Mapping[str, float] = field(default_factory=dict)
    total: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def lanes(self) -> float:
        """Runs that go on at once, on the average of the whole table: of seven on two cores the last has no other."""
        runs = len(self.jobs) * self.seeds
        return runs / math.ceil(runs / self.slots) if runs else 1.0

    @property
    def seconds(self) -> float:
        """Of the whole table."""
        return self.seeds * sum(self.total.values()) / self.lanes

    def settings_of(self, job: Job, seed: int) -> dict[str, Any]:
        """What `fullrank train` is given for one run."""
        workers = {} if self.threads is None else {"workers": self.threads}
        return {**workers, **self.base, **job.settings, "samples": self.samples, "seed": seed}

    @property
    def in_common(self) -> dict[str, Any]:
        """Settings that all runs have the same beside those of the data's recipe."""
        first, *others = (job.settings for job in self.jobs)
        return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}

    def own_words(self, settings: Mapping[str, Any]) -> str:
        """In what the settings of a run are its own."""
        return settings_in_words({name: value for name, value in settings.items() if name not in self.in_common})

    @property
    def asked(self) -> dict[str, Any]:
        """What has to be the same for a folder to be gone on with."""
        base = {name: value for name, value in self.base.items() if name not in FREE}
        return plain(
            {"table": self.table, "settings": base, "downstream": self.downstream}
            | {"budget": self.budget, "seed": self.seed}
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote."""
        jobs = tuple(map(Job.from_dict, stored["jobs"]))
        return cls(**{**stored, "jobs": jobs, "notes": tuple(stored["notes"])})

    def write(self, folder: Path) -> None:
        """Keep the plan in the folder of its runs."""
        write_text(folder / PLAN, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of a folder."""
        return cls.from_dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))

    def render(self) -> Any:
        """The plan on a terminal."""
        grid = Grid("run", "settings", "steps of", "whole run", box=box.SIMPLE_HEAD)
        for job in self.jobs:
            step, total = self.step.get(job.name), self.total.get(job.name)
            said = "" if step is None else f"{step:.3g} s"
            grid.add_row(job.name, self.own_words(job.settings), said, "" if total is None else duration(total))
        side = f", {self.slots} side by side" if self.slots > 1 else ""
        runs = len(self.jobs) * self.seeds
        length = "epochs as in the recipe" if self.epochs is None else f"{self.epochs:g} epochs each"
        pictures = "" if self.samples is None else f" of {self.samples:,} pictures"
        lines = [f"{runs} runs{side}, {length}{pictures}: about {duration(self.seconds)}"]
        if self.budget:
            lines[0] += f" of the {duration(self.budget)} that were given"
        common = [f"all runs: {settings_in_words(self.in_common)}"] if self.in_common else []
        return Group(f"{self.table}", grid, *common, *lines, *self.notes)


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings of a run as they would stand on the command line."""
    words = []
    for name, value in settings.items():
        if isinstance(value, dict):
            words += [f"{name}.{key} {entry:g}" for key, entry in value.items()]
        elif name == "views":
            words.append(f"{sum(view['count'] for view in value)} views")
        else:
            words.append(f"{name} {f'{value:g}' if isinstance(value, float) else value if value != '' else 'none'}")
    return ", ".join(words)


def parse_budget(text: str | None) -> float | None:
    """'30m', '2h' or '1h30m' in seconds. Raises `InputError` for anything else."""
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    said = "".join(number + unit for number, unit in parts)
    if not parts or said != re.sub(r"\s", "", text.lower()) or any(unit not in UNITS for _, unit in parts):
        raise InputError(f"budget is '{text}': expected a time such as 30m, 2h or 1h30m")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise InputError(f"budget is '{text}': give more than nothing")
    return seconds


def make_plan(
    name: str,
    base: Mapping[str, Any],
    *,
    downstream: Mapping[str, str],
    budget: float | None,
    seed: int,
    seeds: int,
    say: Callable[[str], None],
) -> Plan:
    """Expand a table, time a step of every run and a short run as a whole, and choose what fits the budget.

    Raises `InputError` for settings or data that a run would refuse, and for a budget that is too short.
    """
    began = time.monotonic()
    opened = open_few(resolve(base))
    table = open_table(name)
    jobs, notes = expand(table, base, opened.image_size, downstream)
    side, threads = side_by_side(base, len(jobs) * seeds, timed=is_timed(table))
    plan = Plan(
        *(name, base, downstream, budget, base.get("epochs"), base.get("samples"), seed, seeds, tuple(jobs)),
        slots=side,
        threads=threads,
    )
    say(f"timing a few steps of {len(jobs)} runs, and one short run as a whole ...")
    with ThreadPoolExecutor() as both, own_threads(threads):
        trying = both.submit(try_out, plan, opened)  # beside the steps, as runs will be beside each other
        if plan.slots == 1:
            trying.result()
        step = time_steps(plan, opened)
        trial = trying.result()
    count = opened.count if base.get("samples") is None else min(base["samples"], opened.count or base["samples"])
    if count is None:
        raise InputError("the data is a stream: give --samples, so that the length of a run is known")
    plan = dataclasses.replace(plan, step=step, notes=tuple(notes))
    if budget is None:
        return dataclasses.replace(plan, total=total_seconds(plan, count, trial, None))
    left = USED * (budget - (time.monotonic() - began)) * plan.lanes / seeds
    epochs, samples = fit_budget(plan, count, trial, left)
    plan = dataclasses.replace(
        plan,
        epochs=epochs,
        samples=base.get("samples") if samples == count else samples,
        jobs=tuple(with_epochs(job, base, epochs) for job in jobs),
    )
    return dataclasses.replace(plan, total=total_seconds(plan, samples, trial, epochs))


def side_by_side(base: Mapping[str, Any], runs: int, *, timed: bool) -> tuple[int, int | None]:
    """How many runs go on at once and with how many threads each, None on GPUs: one a GPU, and on a CPU one a core.

    Runs of a thread each waste none of it on waiting for each other: two beside each other on two cores take as long
    together as 1.3 of them with two threads, one after the other (benchmarks/results/spins-cpu.json). Where time itself
    is what a table shows, each has the machine for itself.
    """
    if torch.cuda.is_available() and base.get("accelerator") != "cpu":
        return (1 if timed else min(runs, torch.cuda.device_count())), None
    cores = cpu_count()
    fitting = max(1, available_memory() // MEMORY)
    slots = 1 if timed else max(1, min(runs, cores, fitting, MOST_SLOTS))
    return slots, max(1, cores // slots)


def is_timed(table: Table) -> bool:
    """Whether a table shows what runs take."""
    return any(column.score in TIMED for column in table.columns)


@contextlib.contextmanager
def own_threads(threads: int | None) -> Iterator[None]:
    """As many threads in this process as a run will have."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def command_of(folder: Path, job: Job, seed: int) -> list[str]:
    """What starts the process of a run (`tables.work`)."""
    return [sys.executable, "-m", "fullrank.tables.work", str(os.getpid()), str(folder), job.name, str(seed)]


def environment_of(plan: Plan) -> dict[str, str]:
    """What the process of a run is started with."""
    if plan.threads is None:
        return dict(os.environ)
    return os.environ | {name: str(plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def time_steps(plan: Plan, opened: Opened) -> dict[str, float]:
    """Seconds of a step of every job; jobs that differ in amounts alone are timed once."""
    known: dict[str, float] = {}
    times = {}
    for job in plan.jobs:
        kind = {key: value for key, value in job.settings.items() if key not in AMOUNTS}
        kind["regularize"] = bool(kind.get("regularize"))
        key = json.dumps(kind, sort_keys=True)
        if key not in known:
            known[key] = seconds_of_step(resolve({**plan.base, **job.settings}), opened)
        times[job.name] = known[key]
    return times


def try_out(plan: Plan, opened: Opened) -> Trial:
    """A first run of one step and all that comes after, on few pictures and on more of them.

    Raises `InputError` with what it said where it fails: then so would every other.
    """
    fewest = max(resolve({**plan.base, **plan.jobs[0].settings}).batch_size, 512)
    most = min(opened.count or 4 * fewest, 4 * fewest)
    sizes = [fewest, most] if most > fewest else [most]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        began = time.monotonic()
        first = dataclasses.replace(plan.jobs[0], settings={**plan.jobs[0].settings, "steps": 1})
        dataclasses.replace(plan, jobs=(first,)).write(folder)
        command = [*command_of(folder, first, plan.seed), *map(str, sizes)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment_of(plan))
        if done.returncode:
            raise InputError(f"a short run of {first.name} failed: {last_words(done.stderr)}")
        whole = time.monotonic() - began
        times = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    start = whole - sum(times)
    slope = max(0.0, (times[-1] - times[0]) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else 0.0
    return Trial(start + times[0] - slope * sizes[0], slope)


def last_words(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("fullrank: error: ") if lines else "it said nothing"


def total_seconds(plan: Plan, count: int, trial: Trial, epochs: float | None) -> dict[str, float]:
    """Of a run of each job on so many pictures."""
    return {job.name: beside(plan, job, count, trial) + training(plan, job, count, epochs) for job in plan.jobs}


def beside(plan: Plan, job: Job, count: int, trial: Trial) -> float:
    """Seconds of a run apart from its steps."""
    batch = resolve({**plan.base, **job.settings}).batch_size
    forward = plan.step[job.name] / batch / 6  # of a picture: a step is two views there and back, which is thrice that
    return trial.fixed + trial.per_picture * count + forward * 2 * min(sum(FINAL), count)  # both networks, at the end


def training(plan: Plan, job: Job, count: int, epochs: float | None) -> float:
    """Seconds of a run's steps."""
    settings = resolve({**plan.base, **job.settings})
    steps = (epochs or settings.epochs) * (count // settings.batch_size)
    return max(1, int(steps)) * plan.step[job.name]


def fit_budget(plan: Plan, count: int, trial: Trial, seconds: float) -> tuple[float, int]:
    """Epochs and pictures of every run, so that one of each job takes so many seconds in all.

    All pictures where `WHOLE_FROM` of the time is left for training, else half of them, or a quarter, and so on.
    Raises `InputError` where not even the fewest fit.
    """
    largest = max(resolve({**plan.base, **job.settings}).batch_size for job in plan.jobs)
    fewest = min(count, FEWEST_BATCHES * largest)
    samples = count
    while True:
        others = sum(beside(plan, job, samples, trial) for job in plan.jobs)
        an_epoch = sum(training(plan, job, samples, 1.0) for job in plan.jobs)
        left = seconds - others
        share = WHOLE_FROM if samples == count else SHARE
        if left >= max(share * seconds, an_epoch) or samples == fewest:
            break
        samples = max(fewest, samples // 2)
    if left < an_epoch:
        needed = (others + an_epoch) * plan.seeds / plan.lanes / USED
        raise InputError(
            f"the budget is too short for {len(plan.jobs)} runs: an epoch of {samples:,} pictures each and what is "
            f"measured after it take about {duration(needed)} here"
        )
    epochs = left / an_epoch
    return (round(epochs, 2) if epochs < 10 else float(math.floor(epochs))), samples


def with_epochs(job: Job, base: Mapping[str, Any], epochs: float) -> Job:
    """The same run at another length; a warm-up that the recipe fixes takes a tenth of it at most."""
    usual = resolve({**base, **job.settings})
    own: dict[str, Any] = {"epochs": epochs}
    if usual.warmup_epochs is not None:
        own["warmup_epochs"] = min(usual.warmup_epochs, round(epochs / 10, 3))
    return dataclasses.replace(job, settings={**job.settings, **own})
