"""Time and memory of the losses beside the plain formula and other libraries, and their cost over processes.

    python benchmarks/losses.py [--quick] [--out FILE.json]

Forward and backward of VICReg and Barlow Twins in float32, on a grid of batch sizes n and widths d. Every
implementation is called in every round, one after the other, so that a busy machine slows them all; a ratio is
formed inside a round, and its median over rounds and its quartiles are reported. On one CPU thread the clock is
the processor time of this process, which leaves out waiting for others; else it is the wall's. Peak memory is what the
allocator gives out above the two embeddings. Calls foreseen to take over 6 GB or a quarter of a minute are left out.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fullrank import losses

Loss = Callable[[Tensor, Tensor], Tensor]
OURS, PLAIN = "fullrank", "plain formula"
BATCHES, WIDTHS = (64, 256, 1024, 4096), (128, 512, 2048, 8192, 16384)
QUICK_BATCHES, QUICK_WIDTHS = (64, 256), (128, 512, 2048)
MEMORY_LIMIT, TIME_LIMIT = 6e9, 15.0  # bytes and seconds of one call
REDUNDANCY = 0.0051


# --- what is compared


def off_diagonal(matrix: Tensor) -> Tensor:
    """The entries off the diagonal, as the authors select them: a reshape in which the diagonal is a column."""
    d = len(matrix)
    return matrix.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten()


def plain_vicreg(x: Tensor, y: Tensor) -> Tensor:
    n, d = x.shape
    invariance = functional.mse_loss(x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    variance = sum(functional.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() for z in (x, y)) / 2
    covariance = sum(off_diagonal(z.T @ z / (n - 1)).pow_(2).sum() / d for z in (x, y))
    return 25 * invariance + 25 * variance + covariance


def plain_barlow_twins(x: Tensor, y: Tensor) -> Tensor:
    a, b = (functional.batch_norm(z, None, None, training=True) for z in (x, y))
    correlation = a.T @ b / len(a)
    return (torch.diagonal(correlation) - 1).pow(2).sum() + REDUNDANCY * off_diagonal(correlation).pow_(2).sum()


def peers(loss: str) -> dict[str, Loss]:
    """The same loss of the libraries that are installed; the others are named and skipped."""
    found: dict[str, Loss] = {}
    for package, module, name, keywords in PEERS[loss]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = getattr(importlib.import_module(module), name)(**keywords)
        except ImportError as error:
            print(f"{package}: {error}, skipped", file=sys.stderr)
            continue
        reference = package == "pytorch-metric-learning"
        found[package] = (lambda x, y, peer=peer: peer(x, ref_emb=y)) if reference else peer
    return found


PEERS: dict[str, list[tuple[str, str, str, dict[str, float]]]] = {
    "vicreg": [
        ("lightly", "lightly.loss", "VICRegLoss", {}),
        ("stable-pretraining", "stable_pretraining.losses", "VICRegLoss", {}),
        ("pytorch-metric-learning", "pytorch_metric_learning.losses", "VICRegLoss", {}),
    ],
    "barlow_twins": [
        ("lightly", "lightly.loss", "BarlowTwinsLoss", {"lambda_param": REDUNDANCY}),
        ("stable-pretraining", "stable_pretraining.losses", "BarlowTwinsLoss", {"lambd": REDUNDANCY}),
    ],
}


def implementations(loss: str) -> dict[str, Loss]:
    ours, plain = {
        "vicreg": (losses.vicreg, plain_vicreg),
        "barlow_twins": (losses.barlow_twins, plain_barlow_twins),
    }[loss]
    return {OURS: lambda x, y: ours(x, y)["loss"], PLAIN: plain, **peers(loss)}


# --- one call


def embeddings(n: int, d: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    y = x + 0.3 * torch.randn(n, d, generator=generator)
    return x.to(device).requires_grad_(), y.to(device).requires_grad_()


def forward_backward(loss: Loss, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Seconds of one forward and backward pass, and the loss."""
    clock = time.process_time if uses_processor_time(x.device.type) else time.perf_counter
    synchronise(x.device)
    start = clock()
    value = loss(x, y)
    torch.autograd.grad(value, (x, y))
    synchronise(x.device)
    return clock() - start, value.detach()


def uses_processor_time(device: str) -> bool:
    return device == "cpu" and torch.get_num_threads() == 1


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def first_call(loss: Loss, x: Tensor, y: Tensor) -> tuple[float, float, int]:
    """Seconds, the loss, and the most bytes held at once above what was held before; also the warm-up."""
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds, value = forward_backward(loss, x, y)
        return seconds, value.item(), torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        seconds, value = forward_backward(loss, x, y)
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return seconds, value.item(), peak


# --- one grid


def measure_grid(
    loss: str, batches: tuple[int, ...], widths: tuple[int, ...], device: str, budget: float
) -> Iterator[dict]:
    functions = implementations(loss)
    for n in batches:
        before: dict[str, tuple[int, float, int]] = {}  # by implementation: width, seconds and bytes measured last
        for d in widths:
            cell = measure_cell(functions, n, d, device, budget, before)
            if OURS in cell["results"]:
                yield {"loss": loss, "n": n, "d": d, **cell}
            else:
                print(f"\n{loss}  n {n}  d {d}: left out, {cell['skipped'][OURS]}")


def measure_cell(functions: dict[str, Loss], n: int, d: int, device: str, budget: float, before: dict) -> dict:
    skipped = {name: reason for name in functions if (reason := foreseen(before.get(name), n, d, name == OURS))}
    running = {name: function for name, function in functions.items() if name not in skipped}
    if OURS not in running:
        return {"results": {}, "skipped": skipped}
    x, y = embeddings(n, d, device)
    first = {name: first_call(function, x, y) for name, function in running.items()}
    seconds = rounds(running, x, y, {name: call[0] for name, call in first.items()}, budget)
    for name, (_, _, memory) in first.items():
        before[name] = (d, statistics.median(seconds[name]), memory)
    results = {}
    for name, (_, value, memory) in first.items():
        ratios = [other / own for other, own in zip(seconds[name], seconds[OURS], strict=True)]
        results[name] = {
            "median_ms": round(1e3 * statistics.median(seconds[name]), 4),
            "times_ours": spread(ratios),
            "peak_mb": round(memory / 1e6, 3),
            "value_against_ours": value / first[OURS][1],
        }
    return {"rounds": len(seconds[OURS]), "results": results, "skipped": skipped}


def foreseen(last: tuple[int, float, int] | None, n: int, d: int, ours: bool) -> str | None:
    """Why a call is left out: memory and time of the others grow with d^2, ours with d."""
    if last is None:
        return None
    width, seconds, memory = last
    growth = d / width if ours and n < width else (d / width) ** 2
    if memory * growth > MEMORY_LIMIT:
        return f"foreseen {memory * growth / 1e9:.0f} GB"
    if seconds * growth > TIME_LIMIT:
        return f"foreseen {seconds * growth:.0f} s"
    return None


def rounds(
    functions: dict[str, Loss], x: Tensor, y: Tensor, first: dict[str, float], budget: float
) -> dict[str, list[float]]:
    """Seconds a call of each implementation in 3 to 30 rounds; a round takes the median of some calls of each."""
    calls = {name: max(1, min(25, int(0.05 / first[name]))) for name in functions}
    cost = sum(first[name] * calls[name] for name in functions)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(max(3, min(30, int(budget / cost)))):
        for name, function in functions.items():
            times = [forward_backward(function, x, y)[0] for _ in range(calls[name])]
            seconds[name].append(statistics.median(times))
    return seconds


def spread(ratios: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)]}


def print_cell(cell: dict) -> None:
    print(f"\n{cell['loss']}  n {cell['n']}  d {cell['d']}  ({cell['rounds']} rounds)")
    for name, result in cell["results"].items():
        times, (low, high) = result["times_ours"]["median"], result["times_ours"]["quartiles"]
        print(
            f"  {name:24} {result['median_ms']:12.3f} ms  {times:9.2f} times ours [{low:.2f}, {high:.2f}]"
            f"  {result['peak_mb']:10.2f} MB  value {result['value_against_ours']:.6f}"
        )
    for name, reason in cell["skipped"].items():
        print(f"  {name:24} left out: {reason}")
    sys.stdout.flush()


# --- over processes


class OfficialGather(torch.autograd.Function):
    """The scheme of the official VICReg code: all rows to every process, all gradients summed on every process."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        world = torch.distributed.get_world_size()
        everyone = rows.new_empty((world * len(rows), rows.shape[1]))
        torch.distributed.all_gather_into_tensor(everyone, rows.contiguous())
        return everyone

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def official_vicreg(x: Tensor, y: Tensor) -> Tensor:
    d = x.shape[1]
    total = 25 * functional.mse_loss(x, y)
    for z in (OfficialGather.apply(x), OfficialGather.apply(y)):
        z = z - z.mean(0)
        total = total + 12.5 * functional.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
        total = total + off_diagonal(z.T @ z / (len(z) - 1)).pow_(2).sum() / d
    return total


class SentBytes:
    """Passes collectives on and adds up what a ring sends from one process."""

    def __init__(self, world: int) -> None:
        self.total = 0.0
        for name in ("all_gather_into_tensor", "all_gather_single"):  # the name before and since torch 2.14
            if hasattr(torch.distributed, name):
                self._wrap(name, world - 1)
        self._wrap("all_reduce", 2 * (world - 1) / world)

    def _wrap(self, name: str, times: float) -> None:
        collective = getattr(torch.distributed, name)

        def counted(*args):
            self.total += times * args[-1].nbytes  # all_reduce(tensor), all_gather_into_tensor(output, input)
            return collective(*args)

        setattr(torch.distributed, name, counted)


def product_in_place(added, left, right, **_) -> int:
    return 2 * left[0] * left[1] * right[1]


def count_on_process(rank: int, world: int, cases: list[tuple[int, int]], folder: str) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    sent = SentBytes(world)
    counts = []
    for rows, d in cases:
        for name, loss in ((OURS, lambda x, y: losses.vicreg(x, y)["loss"]), ("official", official_vicreg)):
            torch.manual_seed(rank)
            x, y = torch.randn(2, rows, d)
            views = x.requires_grad_(), y.requires_grad_()
            sent.total = 0.0
            mapping = {torch.ops.aten.addmm_: product_in_place}
            with FlopCounterMode(display=False, custom_mapping=mapping) as operations:
                torch.autograd.grad(loss(*views), views)
            counts.append((name, rows, d, operations.get_total_flops(), sent.total))
    if rank == 0:
        Path(folder, "counts.json").write_text(json.dumps(counts))
    torch.distributed.destroy_process_group()


def predicted(name: str, world: int, rows: int, d: int) -> tuple[float, float]:
    """Operations of the products and bytes sent by one process, float32, for both views, forward and backward."""
    n, reduce, number = world * rows, 2 * (world - 1) / world, 4
    if name == "official":
        return 12 * n * d * d, 2 * number * ((world - 1) * rows * d + reduce * n * d)
    if n < d:
        return 8 * rows * n * d, 2 * number * ((world - 1) * rows * d + reduce)
    return 8 * rows * d * d, 2 * number * reduce * (d * d + d)


def measure_processes(worlds: tuple[int, ...]) -> list[dict]:
    """Counted on small embeddings on real processes; predicted for them and for the recipe of the paper."""
    cases = [(4, 64), (16, 8)]
    table = []
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(count_on_process, (world, cases, folder), nprocs=world)
            counts = json.loads(Path(folder, "counts.json").read_text())
        recipe = [(name, 2048 // world, 8192, None, None) for name in (OURS, "official")]
        for name, rows, d, operations, sent in counts + recipe:
            expected_operations, expected_sent = predicted(name, world, rows, d)
            table.append(
                {
                    "scheme": name,
                    "processes": world,
                    "n": world * rows,
                    "d": d,
                    "operations_predicted": expected_operations,
                    "operations_counted": operations,
                    "bytes_predicted": expected_sent,
                    "bytes_counted": sent,
                }
            )
    return table


def print_processes(table: list[dict]) -> None:
    print("\nVICReg over P processes: a process's operations (predicted, counted) and bytes sent (predicted, counted)")
    for row in table:
        print(
            f"  P {row['processes']}  n {row['n']:5} d {row['d']:5}  {row['scheme']:9}"
            f"  {row['operations_predicted']:.4g}, {row['operations_counted'] or '-'}"
            f"  {row['bytes_predicted']:.6g}, {row['bytes_counted'] or '-'}"
        )


# --- the whole


def summary(cells: list[dict]) -> dict:
    """The figures that are aimed at: the ratio to the plain formula at two sizes, and the least ratio to anyone."""
    found: dict = {}
    for cell in cells:
        for name, result in cell["results"].items():
            size = f"{cell['n']} x {cell['d']}"
            times = result["times_ours"]["median"]
            if cell["loss"] == "vicreg" and name == PLAIN and (cell["n"], cell["d"]) in ((64, 8192), (256, 8192)):
                found[f"plain formula, {size}"] = times
            if name != OURS and times < found.get("least ratio", {"times_ours": float("inf")})["times_ours"]:
                found["least ratio"] = {"loss": cell["loss"], "size": size, "to": name, "times_ours": times}
    return found


def surroundings(device: str, threads: int) -> dict:
    packages = ("fullrank", "torch", "lightly", "stable-pretraining", "pytorch-metric-learning")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), processor)
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": "processor time" if uses_processor_time(device) else "wall",
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small grid, in a minute or two")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of torch; more than one needs an idle machine")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["KINETO_LOG_LEVEL"] = "99"  # its progress on every measurement of memory
    batches, widths = (QUICK_BATCHES, QUICK_WIDTHS) if options.quick else (BATCHES, WIDTHS)
    facts = surroundings(options.device, options.threads)
    print(json.dumps(facts, indent=1))
    table = measure_processes((2,) if options.quick else (2, 4, 8))
    print_processes(table)
    budget = 2.0 if options.quick else 4.0  # seconds for a cell, where three rounds take less
    cells: list[dict] = []
    for loss in ("vicreg", "barlow_twins"):
        for cell in measure_grid(loss, batches, widths, options.device, budget):
            cells.append(cell)
            print_cell(cell)
            if options.out:
                write(options.out, {**facts, "summary": summary(cells), "processes": table, "cells": cells})
    print(json.dumps(summary(cells), indent=1))


def write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
