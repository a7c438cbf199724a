"""Training steps a second of every method that lightly or stable-pretraining has too, side by side.

    PYTHONPATH=src python benchmarks/steps.py [--only NAME ...] [--rounds 9] [--out benchmarks/results/steps-cpu]

The same backbone (a ResNet-18, a ViT-Tiny with patches of 4 px for masked modelling), batch and published head
widths, views that are already made, plain SGD for all: what is compared is the method's own step, which is forward,
backward, optimiser, momentum encoders, queues and masks. Each method is measured in a process of its own, where the
libraries take turns in a new order every round; a figure is the median over the rounds, a ratio is formed inside each
round, to the faster peer that computes the method (`LESS_WORK` has what does not). Time is the processor time of one
thread where there is no GPU, wall clock after synchronising where there is one.

`fullrank` runs with images in the memory layout that the peers use. `as it trains` is fullrank with the layout that
`fullrank train` chooses, channels last; the ratio of it to the faster peer is given apart.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import inspect
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from peer_methods import LESS_WORK, PEERS
from torch import Tensor, nn

from fullrank import methods
from fullrank.machine import hardware
from fullrank.methods import Batch, DataFacts
from fullrank.networks import Switches
from fullrank.runs.settings import method_options, switch_names
from fullrank.schedules import Progress
from fullrank.training.speed import keep_freed_memory

SIZE = 32  # pixels a side of the largest view
TRANSFORMERS = ("mae", "msn", "ijepa")
BATCH = {"resnet18": 64, "vit_tiny_patch16_224": 16}
SECONDS = 0.5  # that one library's turn takes at least
OURS, AS_TRAINED = "fullrank", "as it trains"
LIMIT = 3600  # seconds for one method


def backbone_name(name: str) -> str:
    return "vit_tiny_patch16_224" if name in TRANSFORMERS else "resnet18"


def make_backbone(name: str, **options: Any) -> nn.Module:
    """The backbone for a method, always from the same first weights."""
    torch.manual_seed(0)
    kind = backbone_name(name)
    patches = {"img_size": SIZE, "patch_size": 4} if name in TRANSFORMERS else {}
    return timm.create_model(kind, num_classes=0, **patches, **options)


def make_views(name: str, device: torch.device) -> list[Tensor]:
    """Random views of the shapes that the method's published recipe has."""
    generator = torch.Generator().manual_seed(0)
    shapes = [view.shape(3) for view in methods.get(name).views(SIZE) for _ in range(view.count)]
    batch = BATCH[backbone_name(name)]
    return [torch.randn(batch, *shape, generator=generator).to(device) for shape in shapes]


class Ours(nn.Module):
    """A method of fullrank as its trainer calls it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        kind = methods.get(name)
        options = dict(method_options(name))
        accepted = inspect.signature(kind.__init__).parameters
        if "switches" in accepted:
            options["switches"] = Switches(**{key: options.pop(key) for key in switch_names()})
        if "facts" in accepted:
            options["facts"] = DataFacts(samples=10_000, classes=10, image_size=SIZE)
        self.method = kind(make_backbone(name, **kind.backbone_options), **options)
        self.number = 0

    @property
    def progress(self) -> Progress:
        return Progress(self.number, 100_000, 1000)

    def loss(self, views: list[Tensor]) -> Tensor:
        index = torch.arange(len(views[0]), device=views[0].device)
        return self.method(Batch(list(views), index, index % 10, self.progress)).loss

    def before_step(self) -> None:
        self.method.before_step(self.progress)

    def after_step(self) -> None:
        self.method.after_step(self.progress)
        self.number += 1


def sides_of(name: str, device: torch.device) -> dict[str, Callable[[], None]]:
    """One training step of each library that has the method."""
    views = make_views(name, device)
    sides: dict[str, Callable[[], None]] = {}
    if name in methods.names():
        sides[OURS] = step_of(Ours(name), views, device)
        last = [view.to(memory_format=torch.channels_last) if view.ndim == 4 else view for view in views]
        sides[AS_TRAINED] = step_of(Ours(name).to(memory_format=torch.channels_last), last, device)
    for peer, build in PEERS[name].items():
        if peer in installed():
            sides[peer] = step_of(build(partial(make_backbone, name)), views, device)
    return sides


def installed() -> list[str]:
    """The peers that are here; what a figure is relative to is the faster of them."""
    return [peer for peer in ("lightly", "stable-pretraining") if importlib.util.find_spec(peer.replace("-", "_"))]


def step_of(module: Any, views: list[Tensor], device: torch.device) -> Callable[[], None]:
    """Forward, backward, optimiser and what follows it."""
    module.to(device).train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        module.loss(views).backward()
        module.before_step()
        optimizer.step()
        module.after_step()

    step.parameters = sum(each.numel() for each in trained) / 1e6  # type: ignore[attr-defined]
    return step


def clock(device: torch.device) -> float:
    """Seconds, of the processor or of the wall."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds of one step, the mean of `count`."""
    began = clock(device)
    for _ in range(count):
        step()
    return (clock(device) - began) / count


def measure(name: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """The rounds of one method."""
    keep_freed_memory()
    torch.set_num_threads(1)
    sides = sides_of(name, device)
    counts = {}
    for side, step in sides.items():
        step()  # warms up
        counts[side] = max(1, round(SECONDS / timed(step, 1, device)))
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        order = list(sides)
        random.Random(number).shuffle(order)
        for side in order:
            seconds[side].append(timed(sides[side], counts[side], device))
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    row: dict[str, Any] = {
        "method": name,
        "backbone": backbone_name(name),
        "batch": BATCH[backbone_name(name)],
        "rounds": rounds,
        "date": datetime.date.today().isoformat(),
        "steps_per_second": {side: 1 / value for side, value in medians.items()},
        "trained_parameters": {side: step.parameters for side, step in sides.items()},  # type: ignore[attr-defined]
    }
    peers = {peer: medians[peer] for peer in PEERS[name] if peer in medians and (name, peer) not in LESS_WORK}
    if not peers:
        return row
    row["faster_peer"] = min(peers, key=peers.__getitem__)
    for side in {OURS, AS_TRAINED} & set(sides):
        pairs = zip(seconds[row["faster_peer"]], seconds[side], strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        row[f"ratio, {side}"] = [round(each, 3) for each in statistics.quantiles(ratios, n=4, method="inclusive")]
    return row


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one method; one that failed holds the last line of what it said."""
    command = [
        sys.executable,
        *sys.argv[:1],
        "--child",
        name,
        "--rounds",
        str(options.rounds),
        "--device",
        options.device,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"method": name, "error": f"stopped after {LIMIT} s"}
    if done.returncode:
        return {"method": name, "error": (done.stderr.strip() or "no message").splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def each_and_all(key: str, rows: list[dict[str, Any]]) -> str:
    """The lowest and the highest of what the rows have, or the one of all."""
    found = sorted({row[key] for row in rows if key in row})
    return " to ".join(str(each) for each in dict.fromkeys([found[0], found[-1]])) if found else "?"


def as_markdown(rows: list[dict[str, Any]], record: dict[str, Any]) -> str:
    """The table, the median over the methods, and how it was measured."""
    headings = ["method", "backbone", "batch", "fullrank", "as it trains", "lightly", "stable-pretraining"]
    headings += ["fullrank / faster peer", "as it trains / faster peer"]
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        if "error" in row:
            lines.append([row["method"], f"failed: {row['error']}", *[""] * (len(headings) - 2)])
            continue
        speeds = [row["steps_per_second"].get(side) for side in headings[3:7]]
        cells = [
            row["method"],
            row["backbone"],
            str(row["batch"]),
            *(f"{speed:.3g}" if speed else "-" for speed in speeds),
        ]
        for side in (OURS, AS_TRAINED):
            low, middle, high = row.get(f"ratio, {side}", (0, 0, 0))
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})" if middle else "-")
        lines.append(cells)
    text = ["# Training steps a second", "", *(f"| {' | '.join(line)} |" for line in lines), ""]
    for side in (OURS, AS_TRAINED):
        found = [row[f"ratio, {side}"][1] for row in rows if f"ratio, {side}" in row]
        if found:
            text.append(
                f"{side}: median over {len(found)} methods {statistics.median(found):.2f}, lowest {min(found):.2f}.  "
            )
    shown = [row["method"] for row in rows]
    for (name, peer), reason in LESS_WORK.items():
        if name in shown:
            text.append(f"{name} of {peer} is not compared: {reason}.  ")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    text += [
        "",
        f"Steps a second by processor time of one thread, views of {SIZE} px already made, plain SGD; ratios are "
        f"medians (quartiles) over {each_and_all('rounds', rows)} rounds. {each_and_all('date', rows)}, "
        f"{record['hardware']['device']}, {versions}.",
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, metavar="STEM")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.child:
        print(json.dumps(measure(options.child, options.rounds, device)))
        return
    record: dict[str, Any] = {
        "hardware": hardware(device),
        "versions": {each: importlib.metadata.version(each) for each in ("torch", "timm", *installed())},
    }
    found = options.out and options.out.with_suffix(".json")
    table = {row["method"]: row for row in json.loads(found.read_text())["rows"]} if found and found.exists() else {}
    for name in options.only or [each for each in PEERS if each in methods.names()]:
        table[name] = in_own_process(name, options)
        print(json.dumps(table[name]), flush=True)
        rows = [table[each] for each in PEERS if each in table]
        if found:
            found.write_text(json.dumps(record | {"rows": rows}, indent=1) + "\n")
            options.out.with_suffix(".md").write_text(as_markdown(rows, record))
    print("\n" + as_markdown(rows, record))


if __name__ == "__main__":
    main()
