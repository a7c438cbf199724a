"""Processes that each hold different rows: the averaged gradient is that of one process with all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed

from fullrank import losses
from fullrank.errors import InputError
from tests.unit.losses.loss_formulas import barlow_terms, info_nce_mean, nt_xent_mean, vicreg_code_terms, vicreg_terms

WORLDS = (4, 2)
# Rows a process, width: n < d, n = d and n > d for two and for four processes, and a single row a process.
SHAPES = [(3, 20), (1, 6), (4, 8), (4, 16), (9, 7)]
LOSSES = ["vicreg", "barlow_twins", "variance_covariance", "nt_xent", "info_nce"]
CASES = [(name, rows, width) for name in LOSSES for rows, width in SHAPES]
INPUTS = 5


def samples(world: int, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views of the inputs (n, INPUTS), what is added to their embeddings (2, n, d), a shared layer (d, INPUTS)."""
    generator = torch.Generator().manual_seed(world * 1000 + rows * 50 + width)
    n = world * rows
    x, y = torch.randn(2, n, INPUTS, generator=generator, dtype=torch.float64)
    added = torch.randn(2, n, width, generator=generator, dtype=torch.float64) + 2
    weight = 0.4 * torch.randn(width, INPUTS, generator=generator, dtype=torch.float64)
    return x, y, added, weight.requires_grad_()


def terms_of(name: str, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    return losses.variance_covariance(x) if name == "variance_covariance" else getattr(losses, name)(x, y)


def reference_terms(name: str, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """The published formulas on the rows of all processes."""
    if name == "barlow_twins":
        on_diagonal, off_diagonal = barlow_terms(x, y)
        loss = on_diagonal + 0.0051 * off_diagonal
        return {"loss": loss, "invariance": on_diagonal, "redundancy": off_diagonal}
    if name == "vicreg":
        s, v, c = vicreg_code_terms(x, y)
        return {"loss": 25 * s + 25 * v + c, "invariance": s, "variance": v, "covariance": c}
    if name == "nt_xent":
        mean = nt_xent_mean(x, y, 0.1)
        return {"loss": 2 * mean, "nt_xent": mean}
    if name == "info_nce":
        mean = info_nce_mean(x, y, 0.07)
        return {"loss": mean, "info_nce": mean}
    _, twice_v, twice_c = vicreg_terms(x, x)
    return {"loss": (25 * twice_v + twice_c) / 2, "variance": twice_v / 2, "covariance": twice_c / 2}


# --- in the processes


# torch 2.14 renamed two of them.
KINDS = {
    "all_reduce": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "all_gather_single": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
}


class Recorder:
    """Passes collectives on and keeps their names, sizes and types."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, torch.dtype]] = []
        for name, kind in KINDS.items():
            if hasattr(torch.distributed, name):
                setattr(torch.distributed, name, self._wrap(kind, getattr(torch.distributed, name)))

    def _wrap(self, name, collective):
        def recorded(*args, **kwargs):
            sent = args[-1]  # all_reduce(tensor), the others (output, input)
            self.calls.append((name, sent.numel(), sent.dtype))
            return collective(*args, **kwargs)

        return recorded

    def take(self):
        calls, self.calls = self.calls, []
        return calls


def run_case(rank: int, world: int, name: str, rows: int, width: int, recorder: Recorder) -> dict:
    own = slice(rank * rows, (rank + 1) * rows)
    x, y, added, weight = samples(world, rows, width)
    views = [view[own] @ weight.T + extra[own] for view, extra in zip((x, y), added, strict=True)]
    recorder.take()
    terms = terms_of(name, *views)
    forward = recorder.take()
    by_views = torch.autograd.grad(terms["loss"], views, allow_unused=True)
    backward = recorder.take()
    used = [(view, by_view) for view, by_view in zip(views, by_views, strict=True) if by_view is not None]
    (gradient,) = torch.autograd.grad([view for view, _ in used], weight, [by_view for _, by_view in used])
    torch.distributed.all_reduce(gradient)
    return {
        "terms": {key: term.detach() for key, term in terms.items()},
        "gradient": gradient / world,
        "forward": forward,
        "backward": backward,
    }


def run_data_parallel_module(rank: int, world: int) -> torch.Tensor:
    """The weight gradient after one backward pass of torch's own data-parallel wrapper."""
    x, y, _, weight = samples(world, 3, 20)
    own = slice(rank * 3, (rank + 1) * 3)
    layer = torch.nn.Linear(INPUTS, 20, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
    wrapped = torch.nn.parallel.DistributedDataParallel(layer)
    both = wrapped(torch.cat((x[own], y[own])))
    losses.vicreg(both[:3], both[3:])["loss"].backward()
    return layer.weight.grad


def refusals(rank: int) -> dict[str, str]:
    """The messages that this process gets where only process 0 holds a NaN."""
    messages = {}
    for name in ("vicreg", "barlow_twins"):
        for rows, width in ((3, 20), (9, 7)):
            x, y = torch.randn(2, rows, width)
            if rank == 0:
                x[0, 0] = float("nan")
            try:
                terms_of(name, x, y)
            except InputError as error:
                messages[f"{name} {rows} x {width}"] = str(error)
    return messages


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    recorder = Recorder()
    for world in WORLDS:
        if rank >= world:
            continue
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous-{world}", rank=rank, world_size=world
        )
        results: dict = {case: run_case(rank, world, *case, recorder) for case in CASES}
        results["wrapped"] = run_data_parallel_module(rank, world)
        results["refusals"] = refusals(rank)
        recorder.take()
        losses.vicreg(*torch.randn(2, 3, 20).half())
        results["half"] = recorder.take()
        torch.save(results, f"{folder}/{world}-{rank}.pt")
        torch.distributed.destroy_process_group()


# --- in the test


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[int, list[dict]]:
    """By number of processes, what each of them found."""
    folder = tmp_path_factory.mktemp("processes")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(process, args=(str(folder),), nprocs=max(WORLDS))
    return {world: [load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in WORLDS}


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def single_process(world: int, name: str, rows: int, width: int) -> tuple[dict, torch.Tensor]:
    x, y, added, weight = samples(world, rows, width)
    terms = reference_terms(name, x @ weight.T + added[0], y @ weight.T + added[1])
    (gradient,) = torch.autograd.grad(terms["loss"], weight)
    return {key: term.detach() for key, term in terms.items()}, gradient


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("name", "rows", "width"), CASES)
def test_averaged_gradient_is_that_of_one_process(outcomes, world, name, rows, width):
    _, gradient = single_process(world, name, rows, width)
    for outcome in outcomes[world]:
        ours = outcome[name, rows, width]["gradient"]
        torch.testing.assert_close(ours, gradient, rtol=0, atol=1e-12 * gradient.abs().max().item())


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("name", "rows", "width"), CASES)
def test_terms_are_those_of_one_process(outcomes, world, name, rows, width):
    """Shared terms are equal on every process; those of its own rows, or own anchors, have the right mean."""
    expected, _ = single_process(world, name, rows, width)
    results = [outcome[name, rows, width]["terms"] for outcome in outcomes[world]]
    for key, value in expected.items():
        found = torch.stack([terms[key] for terms in results])
        torch.testing.assert_close(found.mean(), value, rtol=1e-12, atol=1e-13)
        local = name in ("nt_xent", "info_nce") or (name == "vicreg" and key in ("loss", "invariance"))
        assert (found.unique().numel() > 1) == local, key


@pytest.mark.parametrize("world", WORLDS)
def test_through_torchs_data_parallel_wrapper(outcomes, world):
    x, y, _, weight = samples(world, 3, 20)
    terms = reference_terms("vicreg", x @ weight.T, y @ weight.T)
    (gradient,) = torch.autograd.grad(terms["loss"], weight)
    for outcome in outcomes[world]:
        torch.testing.assert_close(outcome["wrapped"], gradient, rtol=0, atol=1e-12 * gradient.abs().max().item())


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_what_vicreg_sends(outcomes, world, rows, width):
    n = world * rows
    if n < width:
        view = [("all_gather", rows * width), ("all_reduce", 1)]
    else:
        view = [("all_reduce", width), ("all_reduce", width * width)]
    for outcome in outcomes[world]:
        result = outcome["vicreg", rows, width]
        assert [call[:2] for call in result["forward"]] == 2 * view
        assert result["backward"] == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_what_barlow_twins_sends(outcomes, world, rows, width):
    n = world * rows
    if n < width:
        forward = [("all_gather", rows * width)] * 2 + [("all_reduce", 1)]
        backward = [("all_reduce", width)] * 2
    else:
        forward = [("all_reduce", width)] * 4 + [("all_reduce", width * width)]
        backward = []
    for outcome in outcomes[world]:
        result = outcome["barlow_twins", rows, width]
        assert [call[:2] for call in result["forward"]] == forward
        assert [call[:2] for call in result["backward"]] == backward


@pytest.mark.parametrize("world", WORLDS)
def test_half_precision_rows_are_sent_as_they_are(outcomes, world):
    for outcome in outcomes[world]:
        sent = [dtype for name, _, dtype in outcome["half"] if name == "all_gather"]
        assert sent == [torch.float16] * 2


@pytest.mark.parametrize("world", WORLDS)
def test_a_nan_on_one_process_stops_all(outcomes, world):
    """Else the others would wait for ever in the next collective."""
    for rank, outcome in enumerate(outcomes[world]):
        assert len(outcome["refusals"]) == 4
        for message in outcome["refusals"].values():
            assert ("holds 1 NaN" if rank == 0 else "another process") in message
