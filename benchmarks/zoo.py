"""Every registered method on the embedded set with its tiny recipe, each in a process of its own, in one table.

    python benchmarks/zoo.py [--only NAME ...] [--seed 0] [--steps N] [--out benchmarks/results/zoo-cpu]

Writes STEM.json and STEM.md; with --only, the rows of other methods that STEM.json holds already stay. A method that
fails is a row that says so, and the rest goes on.

`seconds` is the wall clock of the training alone, `processor` the processor time of training and measuring together,
`memory` the largest resident set of the process up to the end of training. kNN is what `fullrank train` measures
(k 20, temperature 0.07); the linear probe is `fullrank evaluate --protocol linear` on the trained and on the untrained
backbone, which start from the same weights. Below the table, for every embedding that is not healthy: its verdict's
reason, and by kNN what its few directions tell of the figure, on 4,000 pictures of which the first half is the bank.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fullrank
from fullrank import collapse, methods
from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.evaluation.features import embed_pictures
from fullrank.evaluation.knn import knn
from fullrank.machine import peak_memory
from fullrank.methods import Method
from fullrank.runs.build import build_method, facts_of
from fullrank.runs.diagnose import as_the_loss_sees
from fullrank.runs.evaluate import chosen_data, pictures_for
from fullrank.runs.folder import CHECKPOINT, Run, restore

LIMIT = 1800  # seconds for one method
COLUMNS = {
    "method": "{method}",
    "params": "{parameters:.2f} M",
    "images/s": "{images_per_second:.0f}",
    "seconds": "{seconds:.0f}",
    "processor": "{processor_seconds:.0f} s",
    "memory": "{peak_megabytes:.0f} MB",
    "kNN": "{knn[trained]:.1f}",
    "untrained": "{knn[untrained]:.1f}",
    "pixels": "{knn[raw_pixels]:.1f}",
    "linear": "{linear[trained]:.1f}",
    "untrained ": "{linear[untrained]:.1f}",
    "rank Y": "{rank[Y]:.1f}",
    "rank Z": "{rank[Z]:.1f}",
    "Y": "{verdict[Y]}",
    "Z": "{verdict[Z]}",
}


def measure(name: str, seed: int, steps: int | None, folder: Path) -> dict[str, Any]:
    """Train one method here and measure what it learnt."""
    run = fullrank.train(method=name, seed=seed, steps=steps, output=f"{folder}/run", logger="none", report=False)
    peak = (peak_memory(torch.device("cpu")) or 0) / 2**20
    processor = time.process_time()
    summary = run.summary
    method, _ = build_method(run.settings, facts_of(run.input))
    verdicts = summary["verdict"]
    return {
        "method": name,
        "family": method.family,
        "seed": seed,
        "backbone": summary["backbone"],
        "parameters": sum(each.numel() for each in method.parameters() if each.requires_grad) / 1e6,
        "steps": summary["steps"],
        "images_per_second": summary["images_per_second"],
        "seconds": summary["seconds"],
        "processor_seconds": round(processor, 1),
        "peak_megabytes": round(peak),
        "knn": summary["knn"],
        "linear": {
            "trained": run.evaluate("linear")["top1"],
            "untrained": untrained_twin(run, method.backbone, folder / "untrained").evaluate("linear")["top1"],
        },
        "rank": {each: verdict["measures"]["effective_rank"] for each, verdict in verdicts.items()},
        "verdict": {each: verdict["verdict"] for each, verdict in verdicts.items()},
        "reason": {each: verdict["reason"] for each, verdict in verdicts.items()},
        "directions": few_directions(run, method),
        "warnings": summary["warnings"],
        "date": summary["date"],
        "hardware": summary["hardware"] | {"load": os.getloadavg()[1]},
        "versions": summary["versions"],
    }


def few_directions(run: Run, untrained: Method) -> dict[str, dict[str, float]]:
    """What the directions with 95 % of the variance tell of the figure, by kNN; and how many the untrained has."""
    trained, settings, taken = restore(run.folder / CHECKPOINT)
    source = open_pictures(**chosen_data(settings, None, None, None))
    chosen = np.arange(0, len(source), 2)
    pictures = pictures_for(Pixels.from_dict(taken["pixels"]), taken["image_size"], source, chosen)
    found: dict[str, dict[str, float]] = {}
    for method, prefix in ((trained, ""), (untrained.eval(), "untrained_")):
        (y, z), kept = embed_pictures(pictures, method.embed)
        labels = torch.from_numpy(source.labels[kept])
        for name, vectors in as_the_loss_sees({"Y": y, "Z": z}, method).items():
            centred = vectors.double() - vectors.double().mean(0)
            count = int(collapse.diagnose(vectors, name=name).measures["directions_95"])
            few = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:count].T
            figures = {"count": count, "knn": halves_knn(few, labels), "knn_of_all": halves_knn(centred, labels)}
            found.setdefault(name, {}).update({prefix + key: value for key, value in figures.items()})
    return found


def halves_knn(vectors: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy (percent) of the kNN classifier on the second half, with the first as its bank."""
    half = len(vectors) // 2
    result = knn(vectors[:half].float(), labels[:half], vectors[half:].float(), labels[half:], k=(20,))
    return round(float(result.scores["top1"]), 2)


def untrained_twin(run: Run, backbone: torch.nn.Module, folder: Path) -> Run:
    """The same run with the weights that it began with."""
    twin = fullrank.load_run(shutil.copytree(run.folder, folder))
    twin.write_backbone(backbone)
    return twin


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one method; one that failed holds the last line of what it said."""
    command = [sys.executable, __file__, "--child", name, "--seed", str(options.seed)]
    command += ["--steps", str(options.steps)] if options.steps else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"method": name, "error": f"stopped after {LIMIT} s"}
    if done.returncode:
        return {"method": name, "error": (done.stderr.strip() or "no message").splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def cells(row: dict[str, Any]) -> list[str]:
    """A row as it is printed."""
    if "error" in row:
        return [row["method"], f"failed: {row['error']}", *[""] * (len(COLUMNS) - 2)]
    return [words.format(**row) for words in COLUMNS.values()]


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, how it was measured, and why an embedding is not healthy."""
    lines = [[heading.strip() for heading in COLUMNS], ["---"] * len(COLUMNS), *map(cells, rows)]
    text = ["# Every method on the embedded set", "", *(f"| {' | '.join(line)} |" for line in lines), ""]
    measured = [row for row in rows if "error" not in row]
    if measured:
        text += [conditions(measured), ""]
    text += [sentence(row, each) for row in measured for each in row["verdict"] if needs_words(row, each)]
    return "\n".join(text).rstrip() + "\n"


def needs_words(row: dict[str, Any], name: str) -> bool:
    """Whether an embedding is less than healthy, and not the same one as Y."""
    return row["verdict"][name] != "healthy" and (name == "Y" or row["rank"]["Y"] != row["rank"]["Z"])


def sentence(row: dict[str, Any], name: str) -> str:
    """Why an embedding is not healthy, and what that costs."""
    seen = row["directions"][name]
    return (
        f"- {row['method']}, {name}: {row['verdict'][name]}. {row['reason'][name]} What holds 95 % of the "
        f"variance (directions: {seen['count']}) tells the figure to {seen['knn']:.1f} % (kNN), all of {name} to "
        f"{seen['knn_of_all']:.1f} %. Untrained: {seen['untrained_count']} directions, "
        f"{seen['untrained_knn_of_all']:.1f} % from all."
    )


def conditions(rows: list[dict[str, Any]]) -> str:
    """What the figures depend on, in words."""
    versions = rows[-1]["versions"]
    backbone = statistics.mode(row["backbone"] for row in rows)
    dates = sorted({row["date"] for row in rows})
    load = statistics.median(row["hardware"]["load"] for row in rows)
    return (
        f"8,000 pictures of 32 px, {backbone} unless the method needs another; kNN and linear in %, "
        f"measured on the labels. One run each, seed {rows[-1]['seed']}; {' to '.join(dict.fromkeys(dates))}; "
        f"{machines(rows)}, median load {load:.1f}; "
        f"python {versions['python']}, torch {versions['torch']}, timm {versions['timm']}. "
        "Seconds and images/s on a machine that had other work (load above the threads) are longer and lower than "
        "those of a quiet one; processor time is not."
    )


def machines(rows: list[dict[str, Any]]) -> str:
    """On what rows were measured; where that is not the same for all, which rows on what."""
    found: dict[str, list[str]] = {}
    for row in rows:
        hardware = row["hardware"]
        words = f"{hardware['threads']} thread(s) of {hardware['cores']} cores ({hardware['device']})"
        found.setdefault(words, []).append(row["method"])
    fewest_last = sorted(found, key=lambda words: -len(found[words]))
    return "; ".join([fewest_last[0], *(f"{', '.join(found[words])}: {words}" for words in fewest_last[1:])])


def merged(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old rows replaced by new ones, in the order of the families."""
    table = {row["method"]: row for row in [*before, *rows] if row["method"] in methods.names()}
    return sorted(
        table.values(), key=lambda row: (methods.FAMILIES.index(methods.get(row["method"]).family), row["method"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=methods.names(), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer than the recipe has, to see that everything works")
    parser.add_argument("--out", type=Path, metavar="STEM")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.child, options.seed, options.steps, Path(folder))))
        return
    for name in options.only:
        methods.get(name)  # a wrong name stops here
    found = options.out and options.out.with_suffix(".json")
    before = json.loads(found.read_text())["rows"] if found and found.exists() else []
    rows: list[dict[str, Any]] = []
    for name in options.only:
        rows.append(in_own_process(name, options))
        print("  ".join(filter(None, cells(rows[-1]))), flush=True)
        table = merged(before, rows)
        if found:
            found.write_text(json.dumps({"rows": table}, indent=1) + "\n")
            options.out.with_suffix(".md").write_text(as_markdown(table))
    print("\n" + as_markdown(merged(before, rows)))
    raise SystemExit(1 if any("error" in row for row in rows) else 0)


if __name__ == "__main__":
    main()
