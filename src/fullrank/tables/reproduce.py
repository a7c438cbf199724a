"""`fullrank reproduce`: a table of the talk on other data, from the plan to the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullrank.errors import InputError
from fullrank.files import unwritable
from fullrank.tables.carry_out import carry_out, refuse_other
from fullrank.tables.expand import Judging
from fullrank.tables.filled import Filled, fill
from fullrank.tables.page import build_page
from fullrank.tables.plan import PLAN, Plan, go_on, make_plan, named_recipe, parse_budget
from fullrank.tables.talk import open_table
from fullrank.tables.written import make_folder, write_all
from fullrank.terminal import log_console
from fullrank.training.fit import data_stem

# Options of the command that say how a table is carried out; the others go to its runs.
OWN = ("name", "output", "downstream", "detection_steps", "budget", "seed", "seeds", "plan", "overwrite")


def reproduce_table(asked: Mapping[str, Any]) -> Plan | Filled:
    """What `fullrank.reproduce` does; `asked` are its arguments by name."""
    began = time.monotonic()
    console = log_console()

    def say(words: str) -> None:
        console.print(words, markup=False)

    table = open_table(asked["name"])
    if not isinstance(asked["data"], str | Path):
        raise InputError("reproduce takes data by its name or path: every run opens it anew in a process of its own")
    if asked["seeds"] < 1:
        raise InputError(f"seeds is {asked['seeds']}: expected 1 or more")
    budget = parse_budget(asked["budget"])
    if budget and asked["epochs"]:
        raise InputError("epochs and budget both say how long runs are: give one of them")
    base = {key: value for key, value in asked.items() if key not in OWN and value is not None}
    base["data"] = str(base["data"])
    folder = Path(asked["output"] or default_output(table.name, base))
    seeds = range(asked["seed"], asked["seed"] + asked["seeds"])
    downstream = asked["downstream"] or {}
    known = (folder / PLAN).is_file()
    if not known:
        refuse_used(folder)
    if known and not asked["overwrite"]:
        judging = Judging(downstream, detection_steps=asked["detection_steps"])
        refuse_other(Plan(table.name, base, named_recipe(base), judging, budget=budget, seed=asked["seed"]), folder)
        plan = go_on(Plan.read(folder), base, asked["seeds"])
    else:
        given = {name: asked[name] for name in ("detection_steps", "seed", "seeds")}
        plan = make_plan(table.name, base, downstream=downstream, budget=budget, **given, say=say)
    if asked["plan"]:
        return plan
    if known and asked["overwrite"]:
        shutil.rmtree(folder)
    make_folder(folder)
    plan.write(folder)
    console.print(plan.render())
    failed = carry_out(plan, folder, seeds, say, since=began)
    filled = fill(plan, folder, seeds, failed)
    write_all(filled, build_page(filled), folder, "table")
    return filled


def default_output(table: str, base: Mapping[str, Any]) -> str:
    """reproductions/<table>-<data>."""
    return f"reproductions/{table}-{data_stem(base['data'])}"


def refuse_used(folder: Path) -> None:
    """Raises `InputError` for a folder with other things in it."""
    try:
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no table: choose another --output")
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(folder, error) from error
