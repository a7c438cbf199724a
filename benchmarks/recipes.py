"""Every recipe at the scale of the papers: its plan, and a dry run of two steps on pictures of the right shape.

    python benchmarks/recipes.py --out benchmarks/results/recipes-cpu.json

Network, views, loss and optimiser are the recipe's own. The pictures are noise in JPEG files of 500 x 375 pixels in
folders by class, as ImageNet's are, with captions for image and text. The plan is that of the published batch; in the
dry run the batch is smaller, and the precision float32. Every recipe is a process of its own; one that takes longer
than `--limit` seconds is stopped.
"""

import argparse
import csv
import datetime
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CLASSES, EACH, SIZE = 16, 4, (375, 500)
BATCHES = {"ijepa-imagenet": 2}  # of a dry run: 24 GB hold the state of a ViT-H and no larger one
LINKS = 64  # names for each file, so that there are as many pictures as the largest batch has


def make_pictures(folder: Path) -> None:
    """`EACH` pictures of every class in `train/CLASS`, each under `LINKS` names, and `captions.csv`, a caption each."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    rows = []
    for label in range(CLASSES):
        inside = folder / "train" / f"n{label:08}"
        inside.mkdir(parents=True)
        for number in range(EACH):
            pixels = chance.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            path = inside / f"{number}-0.jpeg"
            Image.fromarray(pixels).save(path)
            for link in range(LINKS):
                name = path.with_name(f"{number}-{link}.jpeg")
                if link:
                    name.hardlink_to(path)
                rows.append((name.relative_to(folder).as_posix(), f"picture {number} of class {label}"))
    with open(folder / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])


def command_of(name: str, pictures: Path) -> list[str]:
    """How a recipe is trained on the pictures."""
    data = ["--data", str(pictures / "train")]
    if name == "vse-coco":
        data = ["--data", str(pictures), "--captions", str(pictures / "captions.csv")]
    return [sys.executable, "-m", "fullrank.cli", "train", *data, "--recipe", name]


def plan(name: str, pictures: Path, limit: float) -> dict[str, str]:
    """What `fullrank train --plan` says of a recipe, line by line."""
    command = [*command_of(name, pictures), "--plan"]
    wide = os.environ | {"COLUMNS": "300"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=wide)
    except subprocess.TimeoutExpired:
        return {"said": f"not done in {limit:g} s"}
    if done.returncode:
        return {"said": done.stderr.strip()[-300:]}
    lines = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in done.stdout.splitlines()]
    found = {line[0]: line[1].replace(str(pictures), "PICTURES") for line in lines if len(line) == 2}
    if not {"a step", "the run"} <= set(found):
        return {"said": done.stdout[-300:]}
    return {name: words for name, words in found.items() if name not in ("a step", "the run")}  # of no use here


def dry_run(name: str, pictures: Path, batch: int, limit: float) -> dict[str, Any]:
    """What two steps of a recipe gave."""
    from fullrank.runs.folder import Run

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        options = ["--steps", "2", "--batch_size", str(batch), "--precision", "32-true", "--output", str(output)]
        options += ["--samples", str(CLASSES * EACH)]  # for what is measured at the end
        command = [*command_of(name, pictures), *options, "--report", "false"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"said": f"not done in {limit:g} s"}
        if done.returncode:
            return {"said": done.stderr.strip()[-300:]}
        with open(output / "metrics.csv") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        run = Run(output)
        weights = sum(parameter.numel() for parameter in run.backbone.parameters())
        return {"batch": batch, "losses": losses, "backbone": run.settings.backbone, "backbone_parameters": weights}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", help="all without")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--limit", type=float, default=600, help="seconds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    import torch

    from fullrank.machine import hardware, versions
    from fullrank.runs.settings import recipe_names

    names = options.recipes or [name for name in recipe_names() if name.endswith(("-imagenet", "-coco"))]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder))
        for name in names:
            rows[name] = {"plan": plan(name, Path(folder), options.limit)}
            rows[name] |= dry_run(name, Path(folder), BATCHES.get(name, options.batch), options.limit)
            print(name, rows[name], flush=True)
    worked = {
        name
        for name, row in rows.items()
        if len(row.get("losses", [])) == 2 and all(map(math.isfinite, row["losses"])) and "run" in row["plan"]
    }
    result = {
        "steps": 2,
        "pixels": SIZE,
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }
    result |= {"worked": sorted(worked), "versions": versions(), "hardware": hardware(torch.device("cpu"))}
    print(f"{len(worked)} of {len(rows)} recipes gave a plan and two finite losses")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return len(rows) - len(worked)


if __name__ == "__main__":
    sys.exit(main())
