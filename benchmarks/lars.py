"""Time of one optimiser step of LARS beside torch's SGD, on the parameters of VICReg's ImageNet run.

    python benchmarks/lars.py [--rounds N] [--out FILE.json]

ResNet-50 and an expander of 8192-8192-8192: 174.6 million parameters in 168 tensors, of which most are small.
All optimisers have momentum and weight decay. Each is called in every round, one after the other, so that a busy
machine slows them all; a ratio is formed inside a round, and its median over rounds and its quartiles are given.
Without a GPU one thread is used, and its processor time counts, not the time in which others had the processor.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from fullrank.networks.projector import mlp
from fullrank.training.lars import LARS

OURS, YARDSTICK = "fullrank LARS", "torch SGD(foreach=False)"
LR, MOMENTUM, DECAY, ETA = 0.1, 0.9, 1e-6, 1e-3
WARM_UP = 2  # rounds that are not counted


def shapes() -> list[tuple[int, ...]]:
    """Of all parameters, without making them."""
    with torch.device("meta"):
        parts = [timm.create_model("resnet50", num_classes=0)]
        parts.append(mlp([2048, 8192, 8192, 8192], hidden_bias=True, output_bias=False))
    return [tuple(parameter.shape) for part in parts for parameter in part.parameters()]


def plain_lars(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """The equations as they stand, one parameter after the other."""
    buffers = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step() -> None:
        for p, mu in zip(parameters, buffers, strict=True):
            update: Tensor = p.grad
            if p.ndim != 1:
                update = update.add(p, alpha=DECAY)
                lengths = torch.norm(p), torch.norm(update)
                ratio = ETA * lengths[0] / lengths[1]
                update = update.mul(torch.where((lengths[0] > 0) & (lengths[1] > 0), ratio, 1.0))
            mu.mul_(MOMENTUM).add_(update)
            p.add_(mu, alpha=-LR)

    return step


def candidates(parameters: list[nn.Parameter]) -> dict[str, Callable[[], object]]:
    options = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY}
    return {
        OURS: LARS(parameters, eta=ETA, **options).step,
        YARDSTICK: torch.optim.SGD(parameters, foreach=False, **options).step,
        "torch SGD(foreach=True)": torch.optim.SGD(parameters, foreach=True, **options).step,
        "torch SGD(fused=True)": torch.optim.SGD(parameters, fused=True, **options).step,
        "LARS, plain formula": plain_lars(parameters),
    }


def measure(rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of one step, for each candidate and round."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, device=device) * 0.01) for shape in shapes()]
    for p in parameters:
        p.grad = torch.randn_like(p) * 0.01
    steps = candidates(parameters)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + rounds):
        for name, step in steps.items():
            started = now(device)
            step()
            seconds[name].append(now(device) - started)
    return {name: each[WARM_UP:] for name, each in seconds.items()}


def now(device: torch.device) -> float:
    """Seconds: when the GPU has done its work, or of processor time."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and least time in ms, and the ratio to the yardstick with its quartiles."""
    rows = {}
    for name, each in seconds.items():
        ratios = [own / other for own, other in zip(each, seconds[YARDSTICK], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "median_ms": round(1e3 * statistics.median(each), 2),
            "least_ms": round(1e3 * min(each), 2),
            "ratio": round(middle, 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
        }
    return rows


def processor() -> str:
    """Model name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = summary(measure(arguments.rounds, device))
    for name, row in rows.items():
        low, high = row["ratio_quartiles"]
        print(f"{name:26}{row['median_ms']:10.1f} ms   {row['ratio']:.2f} ({low:.2f} to {high:.2f})")
    record = {
        "what": "one optimiser step; ratio: time over that of " + YARDSTICK + ", median over rounds",
        "parameters": sum(torch.Size(shape).numel() for shape in shapes()),
        "tensors": len(shapes()),
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "threads": 1,
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "results": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
