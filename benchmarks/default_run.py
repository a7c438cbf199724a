"""The default run over seeds: what training buys, how long it takes, and what its measurements cost.

    python benchmarks/default_run.py [--seeds 3] [--precisions 32-true bf16-mixed] [--out FILE.json] [--runs FOLDER]

Every run is the command itself, `fullrank train`, in a process of its own. With --runs their folders stay, for
benchmarks/reference_curves.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fullrank


def one_run(seed: int, precision: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "fullrank.cli", "train", "--seed", str(seed), "--precision", precision]
    subprocess.run([*command, "--output", str(folder)], check=True, capture_output=True)
    summary = fullrank.load_run(folder).summary
    names = ("seconds", "images_per_second", "monitor_share", "knn", "factors", "versions", "hardware", "steps")
    verdicts = {name: verdict["verdict"] for name, verdict in summary["verdict"].items()}
    return {"seed": seed, "precision": precision, "verdict": verdicts} | {name: summary[name] for name in names}


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": round(statistics.mean(values), 2), "lowest": min(values), "highest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["32-true"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for precision in options.precisions:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(one_run(seed, precision, (options.runs or Path(folder)) / f"{precision}-{seed}"))
            own = [row for row in rows if row["precision"] == precision]
            figures = {
                name: spread([row["knn"][name] for row in own]) for name in ("trained", "untrained", "raw_pixels")
            }
            figures |= {name: spread([row[name] for row in own]) for name in ("seconds", "monitor_share")}
            print(precision, f"n = {len(own)}", json.dumps(figures), flush=True)
            if options.out:
                record = {"date": datetime.date.today().isoformat(), "rows": rows}
                options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
