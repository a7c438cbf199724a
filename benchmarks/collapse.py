"""Does the verdict name the collapses of the talk? Four short runs on the embedded set, one for each choice of terms.

    python benchmarks/collapse.py [--steps 200]

The table of Bardes et al. (ICLR 2022, table 7) calls invariance alone and invariance + covariance a collapse; without
the covariance term the embedding stays apart but in few directions.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

import fullrank

# invariance, variance, covariance -> what the verdict on Z has to be
EXPECTED = {
    (25.0, 25.0, 1.0): "healthy",
    (25.0, 0.0, 0.0): "complete collapse",
    (25.0, 0.0, 1.0): "complete collapse",
    (25.0, 25.0, 0.0): "dimensional collapse",
}


def row(weights: tuple[float, float, float], steps: int, folder: str) -> dict:
    invariance, variance, covariance = weights
    run = fullrank.train(
        "shapes",
        steps=steps,
        invariance=invariance,
        variance=variance,
        covariance=covariance,
        output=f"{folder}/{invariance:g}-{variance:g}-{covariance:g}",
        logger="none",
        report=False,
    )
    summary = run.summary
    found = {name: verdict["verdict"] for name, verdict in summary["verdict"].items()}
    measures = summary["verdict"]["Z"]["measures"]
    return {
        "weights": weights,
        "expected": EXPECTED[weights],
        "verdict": found,
        "reason": {name: verdict["reason"] for name, verdict in summary["verdict"].items()},
        "remedy": summary["verdict"]["Z"]["remedy"],
        "Z": {name: measures[name] for name in ("effective_rank", "std", "absolute_correlation", "directions_95")},
        "knn": summary["knn"],
        "warnings": summary["warnings"],
        "seconds": summary["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(weights, options.steps, folder) for weights in EXPECTED]
        settings = fullrank.load_run(next(Path(folder).iterdir()))
        versions, hardware = settings.summary["versions"], settings.summary["hardware"]
    print(f"{'inv var cov':>12}  {'verdict on Z':22}{'verdict on Y':22}{'rank Z':>8}{'std Z':>8}{'kNN':>7}")
    for entry in rows:
        weights = " ".join(f"{weight:g}" for weight in entry["weights"])
        scores = f"{entry['Z']['effective_rank']:8.1f}{entry['Z']['std']:8.3f}{entry['knn']['trained']:7.1f}"
        right = "" if entry["verdict"]["Z"] == entry["expected"] else f"   expected {entry['expected']}"
        print(f"{weights:>12}  {entry['verdict']['Z']:22}{entry['verdict']['Y']:22}{scores}{right}")
    record = {"date": datetime.date.today().isoformat(), "steps": options.steps, "seeds": 1, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(record | {"versions": versions, "hardware": hardware}, indent=1) + "\n")
    wrong = [entry for entry in rows if entry["verdict"]["Z"] != entry["expected"]]
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
