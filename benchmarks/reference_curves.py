"""Write the mean curves of finished, healthy runs as a recipe's reference curves.

python benchmarks/reference_curves.py RUN [RUN ...] src/fullrank/recipes/shapes.curves.json

The runs must differ in nothing but their seeds.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import fullrank
from fullrank.runs.folder import Run
from fullrank.training.monitor import read_metrics

POINTS = 60  # of each curve, each the mean of the rows around it
LEFT_OUT = ("step", "epoch", "learning_rate", "images_per_second")
MAY_DIFFER = ("seed", "output")

Curves = dict[str, list[list[float]]]


def healthy_run(folder: str) -> Run:
    run = fullrank.load_run(folder)
    verdicts = {name: verdict["verdict"] for name, verdict in run.summary["verdict"].items()}
    if set(verdicts.values()) != {"healthy"}:
        raise SystemExit(f"{folder} is no healthy run: {verdicts}")
    return run


def curves_of(run: Run) -> Curves:
    """(share of the training done, value) by column."""
    rows, steps = read_metrics(run.folder / "metrics.csv"), run.summary["steps"]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in LEFT_OUT]
    return {name: thinned([(row["step"] / steps, row[name]) for row in rows if name in row]) for name in names}


def thinned(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most about `POINTS` points, each the mean of its neighbours."""
    size = max(1, round(len(points) / POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [[statistics.mean(values) for values in zip(*group, strict=True)] for group in groups]


def averaged(runs: list[Curves]) -> Curves:
    """The mean over runs of the same length."""
    return {
        name: [
            [float(f"{statistics.mean(values):.4g}") for values in zip(*points, strict=True)]
            for points in zip(*(run[name] for run in runs), strict=True)
        ]
        for name in runs[0]
    }


def main(folders: list[str], out: str) -> None:
    runs = [healthy_run(folder) for folder in folders]
    settings = [{key: value for key, value in run.summary["settings"].items() if key not in MAY_DIFFER} for run in runs]
    if any(each != settings[0] for each in settings):
        raise SystemExit("the runs differ in more than their seeds")
    summary = runs[0].summary
    count = "one run" if len(runs) == 1 else f"mean of {len(runs)} seeds"
    source = f"{summary['data']}, {summary['method']} on {summary['backbone']}, {summary['steps']} steps, "
    source += f"{count}, {summary['date']}"
    curves = averaged([curves_of(run) for run in runs])
    content = {"source": source, "method": summary["method"], "steps": summary["steps"], "curves": curves}
    Path(out).write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
