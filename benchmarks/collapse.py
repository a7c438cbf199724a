"""Does the verdict name the collapses of the talk, and does its remedy speak of the right options?

    python benchmarks/collapse.py [--only NAME ...] [--steps 250] [--out benchmarks/results/collapse-cpu.json]

Short runs on the embedded set. VICReg with each choice of terms (Bardes et al., ICLR 2022, table 7): invariance alone
and invariance + covariance collapse to a point; without the covariance term the embedding stays apart, but in few
directions. Then the tricks of the talk's other table taken away one after the other, and the same with the variance
term added to the loss, which has to prevent the worst.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fullrank

HEALTHY, DIMENSIONAL, COMPLETE = "healthy", "dimensional collapse", "complete collapse"
VARIANCE = {"variance": 25.0}


@dataclass(frozen=True)
class Case:
    """A run, the verdicts on Z that are right, and what its remedy has to say."""

    options: dict[str, Any]
    expected: tuple[str, ...]
    remedies: tuple[str, ...] = field(default=())


def vicreg(variance: float, covariance: float, *expected: str, remedies: tuple[str, ...] = ()) -> Case:
    return Case({"method": "vicreg", "variance": variance, "covariance": covariance}, expected, remedies)


SIMSIAM, BYOL, DINO = {"method": "simsiam"}, {"method": "byol"}, {"method": "dino"}
NO_TARGET = {"momentum": 0.0, "stop_gradient": False}
CASES = {
    "vicreg": vicreg(25.0, 1.0, HEALTHY),
    "vicreg, invariance": vicreg(0.0, 0.0, COMPLETE, remedies=("--variance", "--covariance")),
    "vicreg, invariance + covariance": vicreg(0.0, 1.0, COMPLETE, remedies=("--variance",)),
    "vicreg, invariance + variance": vicreg(25.0, 0.0, DIMENSIONAL, remedies=("--covariance",)),
    "simsiam": Case(SIMSIAM, (HEALTHY, DIMENSIONAL)),  # so early in training Z may still have few directions
    "simsiam without stop-gradient": Case(
        SIMSIAM | {"stop_gradient": False}, (COMPLETE,), ("--stop_gradient true", "--regularize.variance 25")
    ),
    "simsiam without stop-gradient, + variance": Case(
        SIMSIAM | {"stop_gradient": False, "regularize": VARIANCE}, (HEALTHY, DIMENSIONAL)
    ),
    "simsiam without predictor": Case(
        SIMSIAM | {"predictor": "none"}, (COMPLETE,), ("--predictor", "--regularize.variance 25")
    ),
    "simsiam without predictor, + variance": Case(
        SIMSIAM | {"predictor": "none", "regularize": VARIANCE}, (HEALTHY, DIMENSIONAL)
    ),
    "byol": Case(BYOL, (HEALTHY, DIMENSIONAL)),
    "byol without momentum, stop-gradient": Case(
        BYOL | NO_TARGET, (COMPLETE,), ("--momentum", "--stop_gradient true", "--regularize.variance 25")
    ),
    "byol without momentum, stop-gradient, + variance": Case(
        BYOL | NO_TARGET | {"regularize": VARIANCE}, (HEALTHY, DIMENSIONAL)
    ),
    "dino": Case(DINO, (HEALTHY, DIMENSIONAL)),
    "dino without centring": Case(DINO | {"centering": False}, (DIMENSIONAL, COMPLETE), ("--centering true",)),
    "dino without centring, + variance": Case(
        DINO | {"centering": False, "regularize": VARIANCE}, (HEALTHY, DIMENSIONAL)
    ),
}


def row(name: str, case: Case, steps: int, folder: str) -> dict[str, Any]:
    """One run and what was said of it."""
    output = f"{folder}/{list(CASES).index(name)}"
    run = fullrank.train("shapes", steps=steps, output=output, logger="none", report=False, **case.options)
    summary = run.summary
    verdicts, z = summary["verdict"], summary["verdict"]["Z"]
    shown = ("effective_rank", "std", "uniformity", "absolute_correlation", "directions_95")
    return {
        "case": name,
        "options": case.options,
        "expected": case.expected,
        "verdict": {each: verdict["verdict"] for each, verdict in verdicts.items()},
        "reason": {each: verdict["reason"] for each, verdict in verdicts.items()},
        "remedy": z["remedy"],
        "missing in the remedy": [words for words in case.remedies if words not in z["remedy"]],
        "Z": {each: z["measures"][each] for each in shown},
        "knn": summary["knn"],
        "warnings": summary["warnings"],
        "seconds": summary["seconds"],
        "versions": summary["versions"],
        "hardware": summary["hardware"],
    }


def is_right(entry: dict[str, Any]) -> bool:
    return entry["verdict"]["Z"] in entry["expected"] and not entry["missing in the remedy"]


def line(entry: dict[str, Any]) -> str:
    z, verdict = entry["Z"], entry["verdict"]
    scores = f"{z['effective_rank']:8.1f}{z['std']:8.3f}{entry['knn']['trained']:7.1f}"
    wrong = "" if is_right(entry) else f"   expected {' or '.join(entry['expected'])} {entry['missing in the remedy']}"
    return f"{entry['case']:50}{verdict['Z']:22}{verdict['Y']:22}{scores}{wrong}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="CASE")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.only or list(CASES)
    before = json.loads(options.out.read_text())["rows"] if options.out and options.out.exists() else []
    table = {entry["case"]: entry for entry in before if entry.get("case") in CASES}
    print(f"{'case':50}{'verdict on Z':22}{'verdict on Y':22}{'rank Z':>8}{'std Z':>8}{'kNN':>7}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            table[name] = row(name, CASES[name], options.steps, folder)
        print(line(table[name]), flush=True)
        if options.out:
            rows = [table[case] for case in CASES if case in table]
            record = {"date": datetime.date.today().isoformat(), "steps": options.steps, "seeds": 1, "rows": rows}
            options.out.write_text(json.dumps(record, indent=1) + "\n")
    raise SystemExit(0 if all(is_right(table[name]) for name in names) else 1)


if __name__ == "__main__":
    main()
