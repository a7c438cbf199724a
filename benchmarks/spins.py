"""How long threads should look for work before they sleep: a step of the default run, alone and beside a second one.

    python benchmarks/spins.py --out benchmarks/results/spins-cpu.json

Every number is the median of a process's timed steps; a pair of processes gives two. `GOMP_SPINCOUNT` is what the
command sets (`fullrank.cli.SPINS`); two processes of one thread each are how `fullrank reproduce` carries out its runs.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SPINS = (0, 300, 1000, 3000, 8000, 20000)
STEP = """
import json, statistics
from fullrank.runs.settings import resolve
from fullrank.training.estimate import open_few, seconds_of_step
settings = resolve({"data": "shapes"})
opened = open_few(settings)
print(json.dumps(statistics.median(seconds_of_step(settings, opened) for _ in range(REPEATS))))
"""


def steps(processes: int, threads: int, spins: int, repeats: int) -> list[float]:
    """The median step of each of so many processes at once, in seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": str(spins)}
    code = STEP.replace("REPEATS", str(repeats))
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return [round(json.loads(each.communicate()[0].splitlines()[-1]), 4) for each in running]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    import torch

    from fullrank.machine import hardware, versions

    cores = os.cpu_count() or 1
    arms = {f"{cores} threads, spins {spins}": (1, cores, spins) for spins in SPINS}
    arms |= {f"two of {cores} threads, spins {spins}": (2, cores, spins) for spins in SPINS}
    arms |= {"one of 1 thread": (1, 1, 0), "two of 1 thread": (2, 1, 0)}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds):  # in turn, so that a busier minute meets all
        for name, (processes, threads, spins) in arms.items():
            found[name] += steps(processes, threads, spins, options.repeats)
            print(name, found[name], flush=True)
    rows = {
        name: {"median": statistics.median(times), "least": min(times), "most": max(times), "n": len(times)}
        for name, times in found.items()
    }
    result = {"unit": "seconds of a step", "date": datetime.date.today().isoformat(), "rows": rows}
    result |= {"versions": versions(), "hardware": hardware(torch.device("cpu"))}
    print(json.dumps(rows, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
