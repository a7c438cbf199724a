"""Write the curves of a finished, healthy run as a recipe's reference curves.

python benchmarks/reference_curves.py runs/shapes-vicreg src/fullrank/recipes/shapes.curves.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fullrank
from fullrank.training.monitor import read_metrics

POINTS = 60  # of each curve, each the mean of the rows around it
LEFT_OUT = ("step", "epoch", "learning_rate", "images_per_second")


def thinned(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most `POINTS` points, each the mean of its neighbours."""
    size = max(1, round(len(points) / POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [[float(f"{sum(values) / len(values):.4g}") for values in zip(*group, strict=True)] for group in groups]


def main(folder: str, out: str) -> None:
    run = fullrank.load_run(folder)
    summary = run.summary
    verdicts = {name: verdict["verdict"] for name, verdict in summary["verdict"].items()}
    if set(verdicts.values()) != {"healthy"}:
        raise SystemExit(f"{folder} is no healthy run: {verdicts}")
    rows = read_metrics(run.folder / "metrics.csv")
    steps = summary["steps"]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in LEFT_OUT]
    curves = {name: thinned([(row["step"] / steps, row[name]) for row in rows if name in row]) for name in names}
    source = (
        f"{summary['data']}, {summary['method']} on {summary['backbone']}, {steps} steps, one run, {summary['date']}"
    )
    Path(out).write_text(json.dumps({"source": source, "curves": curves}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
