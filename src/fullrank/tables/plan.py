"""The plan of a table: its runs, how they are carried out, and what each takes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table as Grid

from fullrank.errors import InputError
from fullrank.files import plain, write_text
from fullrank.report.wording import counted, duration
from fullrank.runs.settings import FREE, load_recipe, resolve
from fullrank.tables.costs import (
    USED,
    fit_budget,
    in_order,
    refuse_hopeless,
    slots_in_memory,
    time_steps,
    total_seconds,
    try_out,
    whole_table,
)
from fullrank.tables.expand import Job, Judging, expand
from fullrank.tables.talk import Table, open_table
from fullrank.training.estimate import open_few

PLAN = "plan.json"
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
TIMED = ("hours_per_100_epochs", "peak_memory")  # scores that say what a run takes
MOST_SLOTS = 8  # runs side by side on a CPU


@dataclass(frozen=True)
class Plan:
    """The runs of a table.

    Attributes:
        table: its name.
        base: settings of all runs.
        recipe: what the recipe that they name says; empty where they name none.
        judging: by what runs can be judged.
        captions: of a picture, on the average; 0 where there are none.
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
    recipe: Mapping[str, Any] = field(default_factory=dict)
    judging: Judging = field(default_factory=Judging)
    captions: float = 0.0
    budget: float | None = None
    epochs: float | None = None
    samples: int | None = None
    seed: int = 0
    seeds: int = 1
    jobs: tuple[Job, ...] = ()
    slots: int = 1
    threads: int | None = None
    step: Mapping[str, float] = field(default_factory=dict)
    total: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of the whole table."""
        return whole_table([self.total.get(job.name, 0.0) for job in self.jobs], self.seeds, self.slots)

    @property
    def fitted(self) -> float | None:
        """The budget that it was made to fit; seeds that are added later are not of it."""
        return self.budget if self.budget and self.seconds <= self.budget else None

    def runs(self, seeds: Iterable[int]) -> list[tuple[Job, int]]:
        """All runs, in the order in which they begin."""
        each = [(job, seed) for job in self.jobs for seed in seeds]
        order = in_order([self.total.get(job.name, 0.0) for job, _ in each], self.slots)
        return [each[number] for number in order]

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
            {"table": self.table, "settings": base, "downstream": self.judging.downstream}
            | {"detection_steps": self.judging.detection_steps, "budget": self.budget, "seed": self.seed}
            | {f"{name} in its recipe": value for name, value in self.recipe.items()}
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote."""
        jobs = tuple(map(Job.from_dict, stored["jobs"]))
        judging = Judging(**stored["judging"])
        return cls(**{**stored, "judging": judging, "jobs": jobs, "notes": tuple(stored["notes"])})

    def write(self, folder: Path) -> None:
        """Keep the plan in the folder of its runs."""
        write_text(folder / PLAN, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of a folder. Raises `InputError` for one that cannot be read."""
        try:
            return cls.from_dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{folder / PLAN} is damaged, or of another version: choose another --output, or delete the folder"
            ) from error

    def render(self) -> Any:
        """The plan on a terminal."""
        grid = Grid("run", "settings", "a step", "whole run", box=box.SIMPLE_HEAD)
        for job in self.jobs:
            step, total = self.step.get(job.name), self.total.get(job.name)
            said = "" if step is None else f"{step:.3g} s"
            words = map(escape, (job.name, self.own_words(job.settings)))
            grid.add_row(*words, said, "" if total is None else duration(total))
        side = f", {self.slots} side by side" if self.slots > 1 else ""
        runs = len(self.jobs) * self.seeds
        length = "epochs as in the recipe" if self.epochs is None else f"{counted(self.epochs, 'epochs')} each"
        pictures = "" if self.samples is None else f" of {self.samples:,} pictures"
        lines = [f"{runs} runs{side}, {length}{pictures}: about {duration(self.seconds)}"]
        if self.fitted:
            lines[0] += f" of the {duration(self.fitted)} that were given"
        common = [f"all runs: {settings_in_words(self.in_common)}"] if self.in_common else []
        return Group(self.table, grid, *map(escape, (*common, *lines, *self.notes)))


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings of a run as they would stand on the command line."""
    words = []
    for name, value in settings.items():
        if isinstance(value, dict):
            words += [f"{name}.{key} {entry:g}" for key, entry in value.items()]
        elif name == "views":
            words.append(f"{sum(view['count'] for view in value)} views")
        else:
            shown = "none" if value == "" else f"{value:g}" if isinstance(value, float) else value
            words.append(f"{name} {shown}")
    return ", ".join(words)


def parse_budget(text: str | None) -> float | None:
    """'30m', '2h' or '1h30m' in seconds. Raises `InputError` for anything else."""
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    said = "".join(number + unit for number, unit in parts)
    if not parts or said != re.sub(r"\s", "", text.lower()) or any(unit not in UNITS for _, unit in parts):
        raise InputError(f"budget is '{text}': expected a time such as 30m, 2h or 1h30m (s, m, h or d)")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise InputError(f"budget is '{text}': give more than nothing")
    return seconds


def make_plan(
    name: str,
    base: Mapping[str, Any],
    *,
    downstream: Mapping[str, str],
    detection_steps: int | None = None,
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
    count = opened.count if base.get("samples") is None else min(base["samples"], opened.count or base["samples"])
    if count is None:
        raise InputError("the data is a stream: give --samples, so that the length of a run is known")
    table = open_table(name)
    judging = Judging(downstream, opened.known, opened.smallest_class, detection_steps)
    jobs, notes = expand(table, base, opened.image_size, judging)
    slots = most_slots(base, len(jobs) * seeds, timed=is_timed(table))
    plan = Plan(
        name,
        base,
        named_recipe(base),
        judging,
        captions=opened.captions,
        budget=budget,
        epochs=base.get("epochs"),
        samples=base.get("samples"),
        seed=seed,
        seeds=seeds,
        jobs=tuple(jobs),
        slots=slots,
        threads=threads_of(base, slots),
        notes=tuple(notes),
    )
    say(f"timing a few steps of {len(jobs)} runs, and one short run as a whole ...")

    def check() -> None:
        if budget is not None and trying.done() and not trying.exception():
            refuse_hopeless(plan, trying.result(), USED * (budget - (time.monotonic() - began)))

    given_up = threading.Event()
    with ThreadPoolExecutor() as both, own_threads(plan.threads):
        trying = both.submit(try_out, plan, count, given_up)  # beside the steps, as runs will be beside each other
        try:
            if plan.slots == 1:
                wait([trying])
            step, refused = time_steps(plan, opened, check)
            first_can = plan.jobs[0].name not in refused
            plan = without(plan, refused)
            trial = trying.result() if first_can else try_out(plan, count, given_up)
        except BaseException:
            given_up.set()  # or leaving this block would wait for its end
            raise
    if plan.threads is not None:
        slots = slots_in_memory(slots, trial)
    plan = dataclasses.replace(plan, step=step, slots=slots, threads=threads_of(base, slots))
    if budget is None:
        return dataclasses.replace(plan, total=total_seconds(plan, count, trial, None))
    epochs, samples = fit_budget(plan, count, trial, USED * (budget - (time.monotonic() - began)))
    plan = dataclasses.replace(
        plan,
        epochs=epochs,
        samples=base.get("samples") if samples == count else samples,
        jobs=tuple(with_epochs(job, base, epochs) for job in plan.jobs),
    )
    return dataclasses.replace(plan, total=total_seconds(plan, samples, trial, epochs))


def named_recipe(base: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe says that settings name."""
    return load_recipe(base["recipe"]) if base.get("recipe") else {}


def without(plan: Plan, refused: Mapping[str, str]) -> Plan:
    """The same without the jobs that refuse the data, and a note of why."""
    notes = tuple(f"{name} is left out: {reason}." for name, reason in refused.items())
    jobs = tuple(job for job in plan.jobs if job.name not in refused)
    return dataclasses.replace(plan, jobs=jobs, notes=(*plan.notes, *notes))


def go_on(plan: Plan, base: Mapping[str, Any], seeds: int) -> Plan:
    """A plan as this call carries it out: how runs are carried out is as it is asked for now, on this machine."""
    kept = {name: value for name, value in plan.base.items() if name not in FREE}
    base = kept | {name: value for name, value in base.items() if name in FREE}
    slots = most_slots(base, len(plan.jobs) * seeds, timed=is_timed(open_table(plan.table)))
    if plan.threads is not None and not on_gpu(base):
        slots = min(slots, plan.slots)  # as many as memory was found to allow
    return dataclasses.replace(plan, base=base, seeds=seeds, slots=slots, threads=threads_of(base, slots))


def most_slots(base: Mapping[str, Any], runs: int, *, timed: bool) -> int:
    """How many runs may go on at once: one a GPU, and on a CPU one a core.

    Runs of a thread each waste none of it on waiting for each other: two beside each other on two cores take as long
    together as 1.3 of them with two threads, one after the other (benchmarks/results/spins-cpu.json). Where time itself
    is what a table shows, each has the machine for itself.
    """
    if timed:
        return 1
    return max(1, min(runs, torch.cuda.device_count() if on_gpu(base) else min(cpu_count(), MOST_SLOTS)))


def threads_of(base: Mapping[str, Any], slots: int) -> int | None:
    """Of each run on a CPU; None where a GPU computes."""
    return None if on_gpu(base) else max(1, cpu_count() // slots)


def on_gpu(base: Mapping[str, Any]) -> bool:
    """Whether runs are carried out on GPUs."""
    return torch.cuda.is_available() and base.get("accelerator") != "cpu"


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


def with_epochs(job: Job, base: Mapping[str, Any], epochs: float) -> Job:
    """The same run at another length; a warm-up that the recipe fixes takes a tenth of it at most."""
    usual = resolve({**base, **job.settings})
    own: dict[str, Any] = {"epochs": epochs}
    if usual.warmup_epochs is not None:
        own["warmup_epochs"] = min(usual.warmup_epochs, round(epochs / 10, 3))
    return dataclasses.replace(job, settings={**job.settings, **own})
