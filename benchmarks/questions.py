"""The talk's two closing questions and two of the reviewers' remarks, answered by experiment (docs/questions.md).

    python benchmarks/questions.py [tricks] [hinge] [covariance] [borrowed] [--seeds 3] [--out FILE.json]

On two cores `tricks`, which trains 21 networks, takes eleven minutes; the others together take 40 seconds.

tricks      Which trick does VICReg still need? Runs of `fullrank train` on pictures of the embedded set without one
            trick each: kNN accuracy, and how many dimensions Y and Z have.
hinge       Why the standard deviation and not the variance in the hinge? The gradient of both for embeddings of every
            spread, and a network that starts from a nearly collapsed embedding with each.
covariance  "The computation time of the covariance matrix is quadratic in terms of the feature dimension": one pass
            forward and backward of the loss by the plain formula and as it is computed here, over widths.
borrowed    "The covariance term is borrowed from the Barlow Twins method": how far the gradients of the two terms on
            the same embeddings point the same way, and what each does to the scale of an embedding.
"""

import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from losses import plain_vicreg
from torch import Tensor, nn

from fullrank import collapse, load_run, losses
from fullrank.machine import hardware, versions

# --- which trick is still needed

RUN = "--data shapes:N=3000,size=32 --recipe shapes --stem_stride 4 --epochs 16 --learning_rate 0.012"
AS_IT_IS = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0}
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
TRICKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "augmentations": {"views": [AS_IT_IS, AS_IT_IS]},
    "expander": {"expander": "none"},
    "batch norm in the expander": {"batch_norm": False},
    "batch norm anywhere": {"batch_norm": False, "backbone_options.norm_layer": "groupnorm1"},
    "batches of 128 (16)": {"batch_size": 16},
    "variance and covariance": {"variance": 0.0, "covariance": 0.0},
}


def tricks(seeds: int) -> dict[str, Any]:
    """Every arm's kNN accuracy and ranks over the seeds; a run a core, with one thread each."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as several:
        started = {
            name: [
                several.submit(trained, TRICKS[name], seed, Path(folder) / f"{place}-{seed}") for seed in range(seeds)
            ]
            for place, name in enumerate(TRICKS)
        }
        for name, runs in started.items():
            summaries = [run.result() for run in runs]
            rows[name] = {
                "knn": spread([each["knn"]["trained"] for each in summaries]),
                "untrained": spread([each["knn"]["untrained"] for each in summaries]),
                "seconds": spread([each["seconds"] for each in summaries]),
                "verdicts": [{which: one["verdict"] for which, one in each["verdict"].items()} for each in summaries],
            }
            for which in "YZ":
                ranks = [each["verdict"][which]["measures"]["effective_rank"] for each in summaries]
                rows[name][f"rank {which}"] = spread(ranks)
            print(name, json.dumps(rows[name]), flush=True)
    return {"run": RUN, "without": rows}


def trained(without: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """The summary of one run."""
    given = [
        word
        for name, value in without.items()
        for word in (f"--{name}", value if isinstance(value, str) else json.dumps(value))
    ]
    command = [sys.executable, "-m", "fullrank.cli", "train", *RUN.split(), *given, "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--report", "false", "--output", str(folder)], capture_output=True, text=True, env=ONE_THREAD
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return load_run(folder).summary


# --- why the standard deviation

SPREADS = (1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9)
START, STEPS = 3e-4, 200


def std_hinge(z: Tensor) -> Tensor:
    return torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()


def variance_hinge(z: Tensor) -> Tensor:
    return torch.relu(1 - z.var(0)).mean()


HINGES: dict[str, Callable[[Tensor], Tensor]] = {"standard deviation": std_hinge, "variance": variance_hinge}


def hinge(seeds: int) -> dict[str, Any]:
    """Gradients of both hinges over the spread; curves of a network that begins nearly collapsed, for each."""
    gradients = []
    for size in SPREADS:
        z = torch.randn(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        z = (size * (z - z.mean(0)) / z.std(0)).requires_grad_()
        # Scaled so that the hinge on the standard deviation without ε has 1 at every spread below 1: its gradient for
        # one of d dimensions has a norm of 1 / (d sqrt(n - 1)), and d of them together 1 / sqrt(d (n - 1)).
        norms = {name: torch.autograd.grad(of(z), z)[0].norm() * (255**0.5) * 8 for name, of in HINGES.items()}
        gradients.append({"spread": size} | {name: float(norm) for name, norm in norms.items()})
        print(gradients[-1], flush=True)
    curves: dict[str, Any] = {}
    for name, of in HINGES.items():
        runs = [from_collapse(of, seed) for seed in range(seeds)]
        at = {str(step): spread([run["std"][step] for run in runs]) for step in (0, 1, 5, 10, 20, 50, 100, STEPS)}
        curves[name] = {"std": at} | {each: spread([run[each] for run in runs]) for each in ("out", "knn", "rank")}
        print(name, json.dumps(curves[name]), flush=True)
    return {"gradient": gradients, "start": START, "steps": STEPS, "runs": curves}


def from_collapse(term: Callable[[Tensor], Tensor], seed: int) -> dict[str, Any]:
    """VICReg with one of the hinges on digits, by plain gradient descent, from an embedding of spread `START`.

    Plain, since Adam divides by the size of the gradient and so hides it. `out` is the first step at which the spread
    is above a half.
    """
    images, labels = digits()
    torch.manual_seed(seed)
    widths = (64, 256, 256, 64)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    network = nn.Sequential(*layers[:-2])
    with torch.no_grad():
        last = network[-1]
        last.weight *= START / network(images).std(0).mean()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    std = []
    for step in range(STEPS + 1):
        std.append(float(network(images).std(0).mean().detach()))
        if step == STEPS:
            break
        batch = images[torch.randint(len(images), (256,))]
        x, y = (network(batch + 0.3 * torch.randn_like(batch)) for _ in range(2))
        covariance = losses.vicreg(x, y, invariance=0.0, variance=0.0)["loss"]
        loss = 25 * (x - y).square().mean() + 12.5 * (term(x) + term(y)) + covariance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        z = network.eval()(images)
    out = next((step for step, each in enumerate(std) if each > 0.5), STEPS)
    return {
        "std": std,
        "out": out,
        "knn": neighbours(z, labels),
        "rank": collapse.diagnose(z).measures["effective_rank"],
    }


def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1,797 digits, standardised as a whole, and their labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32)
    return (images - images.mean()) / images.std(), torch.tensor(labels)


def neighbours(z: Tensor, labels: Tensor) -> float:
    """Accuracy of the nearest neighbour by cosine, in per cent: each row's label by the other rows."""
    rows = nn.functional.normalize(z)
    nearest = (rows @ rows.T).fill_diagonal_(-2).argmax(1)
    return float((labels[nearest] == labels).float().mean() * 100)


# --- the reviewers' remarks

WIDTHS, ROWS, ROUNDS = (512, 1024, 2048, 4096, 8192), 256, 5


def covariance(seeds: int) -> dict[str, Any]:
    """Seconds of one pass forward and backward, for the plain formula and the library's, in turn in each round."""
    arms = {"fullrank": lambda x, y: losses.vicreg(x, y)["loss"], "plain formula": plain_vicreg}
    rows: dict[str, Any] = {}
    for width in WIDTHS:
        views = [torch.randn(ROWS, width, requires_grad=True) for _ in range(2)]
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(ROUNDS + 1):
            for name, loss in arms.items():
                began = time.perf_counter()
                torch.autograd.grad(loss(*views), views)
                times[name].append(time.perf_counter() - began)
        ratio = [plain / own for own, plain in zip(*(times[name][1:] for name in arms), strict=True)]
        rows[str(width)] = {name: statistics.median(each[1:]) for name, each in times.items()} | {
            "ratio": spread(ratio)
        }
        print(width, json.dumps(rows[str(width)]), flush=True)
    return {"rows": ROWS, "rounds": ROUNDS, "widths": rows}


NOISE = (0.0, 0.3, 1.0, 3.0)


def borrowed(seeds: int) -> dict[str, Any]:
    """The cosine between the gradients of VICReg's covariance and of Barlow Twins' redundancy, over the views' noise.

    Embeddings of 256 rows and 64 dimensions that are correlated (32 factors); views differ by noise of that size.
    """
    found: dict[str, Any] = {}
    for noise in NOISE:
        cosines = []
        for seed in range(seeds):
            chance = torch.Generator().manual_seed(seed)
            signal = torch.randn(256, 32, generator=chance) @ torch.randn(32, 64, generator=chance) / 32**0.5
            x, y = ((signal + noise * torch.randn(256, 64, generator=chance)).requires_grad_() for _ in range(2))
            ours = torch.autograd.grad(losses.vicreg(x, y, invariance=0.0, variance=0.0)["loss"], (x, y))
            # The redundancy is linear in its weight: what the loss has beyond that of weight 0.
            theirs = torch.autograd.grad(losses.barlow_twins(x, y, redundancy=1.0)["loss"], (x, y))
            without = torch.autograd.grad(losses.barlow_twins(x, y, redundancy=0.0)["loss"], (x, y))
            redundancy = torch.cat([one - other for one, other in zip(theirs, without, strict=True)])
            cosines.append(
                float(nn.functional.cosine_similarity(torch.cat(ours).flatten(), redundancy.flatten(), dim=0))
            )
        found[str(noise)] = spread(cosines)
        print("noise", noise, found[str(noise)], flush=True)
    # What each says of the same embedding at another scale: VICReg's term falls with its fourth power, and so pulls
    # towards a point by itself; Barlow Twins' does not see the scale.
    z = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    scales: dict[str, Any] = {}
    for scale in (1.0, 0.1):
        ours = losses.vicreg(scale * z, scale * z, invariance=0.0, variance=0.0)["covariance"]
        theirs = losses.barlow_twins(scale * z, scale * z)["redundancy"]
        scales[str(scale)] = {"vicreg": float(ours), "barlowtwins": float(theirs)}
    print("scale", scales)
    return {"cosine": found, "scale": scales}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, least and most."""
    return {"mean": statistics.mean(values), "least": min(values), "most": max(values), "n": len(values)}


EXPERIMENTS = {"tricks": tricks, "hinge": hinge, "covariance": covariance, "borrowed": borrowed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []], help="all without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"date": datetime.date.today().isoformat()}
    for name in options.experiments or EXPERIMENTS:
        began = time.monotonic()
        result[name] = EXPERIMENTS[name](options.seeds) | {"seconds": round(time.monotonic() - began, 1)}
    result |= {"versions": versions(), "hardware": hardware(torch.device("cpu"))}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
