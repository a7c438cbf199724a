"""What VICReg, Barlow Twins, BYOL and SwAV with and without multi-crop cost, side by side and beside their peers.

    python benchmarks/cost.py --data cifar10.tar.xz --split train --recipe benchmarks/cifar10.yaml --budget 10m

The talk's table of costs, each run with the machine for itself; then, where lightly or stable-pretraining is installed,
steps a second of the same methods there and here (`steps.py`, views made beforehand), in the same call.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import installed

import fullrank
from fullrank.tables.written import markdown_table

METHODS = ("vicreg", "barlowtwins", "byol", "swav")


def beside_peers(rounds: int) -> str:
    """Steps a second of fullrank and of each peer that is installed, as Markdown."""
    if not installed():
        return "Neither lightly nor stable-pretraining is installed: nothing is measured beside them."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "steps"
        script = str(Path(__file__).with_name("steps.py"))
        subprocess.run(
            [sys.executable, script, "--only", *METHODS, "--rounds", str(rounds), "--out", str(out)], check=True
        )
        found = json.loads(out.with_suffix(".json").read_text())
    rows = []
    for row in found["rows"]:
        speeds = row["steps_per_second"]
        peers = [f"{name} {speeds[name]:.2f}" for name in speeds if name not in ("fullrank", "as it trains")]
        low, middle, high = row["ratio, as it trains"]
        rows.append([row["method"], f"{speeds['as it trains']:.2f}", ", ".join(peers), f"{middle} ({low} to {high})"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    how = (
        f"Steps a second beside peers ({versions}): a ResNet-18 with published heads, batches of {row['batch']} views "
        f"of 32 px that are already made, plain SGD, one thread's processor time, float32; medians of {rounds} rounds "
        "in which the libraries take turns, ratios to the faster peer:\n\n"
    )
    return how + markdown_table(["method", "fullrank", "peers", "ratio (quartiles)"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--split")
    parser.add_argument("--backbone")
    parser.add_argument("--recipe")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--budget")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    asked = {
        name: getattr(options, name) for name in ("data", "split", "backbone", "recipe", "epochs", "budget", "seeds")
    }
    filled = fullrank.reproduce("cost", **asked, output=options.folder)
    text = filled.markdown() + "\n" + beside_peers(options.rounds) + "\n"
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    if filled.failed:
        sys.exit(f"{len(filled.failed)} runs failed")


if __name__ == "__main__":
    main()
