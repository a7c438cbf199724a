"""SwAV: Sinkhorn-Knopp, the loss, and whole training steps with and without a queue."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.methods import Batch, Optimization, get
from fullrank.schedules import Progress
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.reference.state import load, tensor


def test_codes(precision, fixture_file, error_table) -> None:
    file = fixture_file("swav_sinkhorn")
    scores = tensor(file, "in_scores", precision)
    for case, (epsilon, iterations) in enumerate(zip(file["in_eps"], file["in_iters"], strict=True)):
        ours = losses.swav_codes(scores, epsilon=float(epsilon), iterations=int(iterations))
        error_table.check("swav_sinkhorn", "out_q", ours, file["out_q"][case], precision=precision)


def codes_of_process(rank: int, file: dict, precision: str) -> dict[str, np.ndarray]:
    p = file["params"]
    scores = tensor(file, "in_scores", precision)[rank]
    codes = losses.swav_codes(scores, epsilon=p["epsilon"], iterations=p["sinkhorn_iterations"])
    return {"out_q": codes.numpy()}


def test_codes_of_processes(precision, fixture_file, error_table, processes) -> None:
    name = "swav_sinkhorn_dist"
    file = fixture_file(name)
    results = processes(file["params"]["world_size"]).run(codes_of_process, file, precision)
    ours = np.stack([result["out_q"] for result in results])
    error_table.check(name, "out_q", ours, file["out_q"], precision=precision)


def test_loss(precision, fixture_file, error_table) -> None:
    file = fixture_file("swav_loss")
    p = file["params"]
    scores = tensor(file, "in_scores", precision).requires_grad_()
    views = scores.detach().unflatten(0, (sum(p["nmb_crops"]), p["batch"]))
    given = {"epsilon": p["epsilon"], "iterations": p["sinkhorn_iterations"]}
    codes = torch.stack([losses.swav_codes(views[view], **given) for view in p["crops_for_assign"]])
    terms = losses.swav(scores, codes=codes, assigned=p["crops_for_assign"], temperature=p["temperature"])
    terms["loss"].backward()
    torch.testing.assert_close(terms["entropy"] + terms["divergence"], terms["loss"])
    for key, ours in (("out_q", codes), ("out_loss", terms["loss"]), ("grad_scores", scores.grad)):
        error_table.check("swav_loss", key, ours, file[key], precision=precision)


class SpatialMean(nn.Module):
    """The stand-in for a ResNet: pixels are features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def own_name(key: str) -> str:
    return key.replace("projection_head.", "network.projector.")


def build(file: dict, precision: str) -> nn.Module:
    p = file["params"]
    method = get("swav")(
        SpatialMean(p["D"]),
        projector=f"{p['H']}-{p['F']}",
        prototypes=p["K"],
        temperature=p["T"],
        epsilon=p["eps"],
        sinkhorn_iterations=p["it"],
        assigned=tuple(p["assign"]),
        freeze_epochs=float(p["freeze"]),  # epochs of one step
        queue=p["queue"],
        queue_from_epoch=0,
    )
    keys = [key for key in file if key.startswith(("in_projection_head.", "in_prototypes."))]
    names = {own_name(key.removeprefix("in_")): key for key in keys}
    return load(method.to(getattr(torch, precision)), file, names, precision)


@pytest.fixture
def balanced(monkeypatch) -> list[tuple[int, Tensor]]:
    """The number of rows and the result of every use of Sinkhorn-Knopp."""
    seen: list[tuple[int, Tensor]] = []

    def spy(logs: Tensor, **options) -> Tensor:
        seen.append((len(logs), losses.sinkhorn(logs, **options)))
        return seen[-1][1]

    monkeypatch.setattr("fullrank.losses.swapped.sinkhorn", spy)
    return seen


def newest_first(rows: Tensor, pointer: Tensor, batch: int) -> Tensor:
    """A queue as the authors keep it: batches from the newest to the oldest."""
    return rows.roll(-int(pointer), 0).unflatten(0, (-1, batch)).flip(0).flatten(0, 1)


def one_step(method: nn.Module, file: dict, number: int, precision: str, update: Callable) -> dict[str, Tensor]:
    """What the file calls the results of a step, by its keys."""
    p = file["params"]
    crops = {
        f"grad_crop{v}": tensor(file, f"in_crop{v}", precision)[number].requires_grad_() for v in range(sum(p["nmb"]))
    }
    progress = Progress(number, p["S"], 1)
    scores: list[Tensor] = []
    hook = method.prototypes.register_forward_hook(lambda module, given, result: scores.append(result.detach()))
    step = method(Batch(list(crops.values()), torch.arange(p["B"]), progress=progress))
    hook.remove()
    method.zero_grad()
    step.loss.backward()
    found = {
        "out_loss": step.loss,
        "out_embedding": torch.cat(step.embeddings),
        "out_scores": scores[0],
        "out_prototypes_at_forward": method.prototypes.weight.clone(),
    }
    found |= {key: crop.grad for key, crop in crops.items()}
    parameters = dict(method.named_parameters())
    keys = [key for key in file if key.startswith("grad_") and key not in crops]
    found |= {key: parameters[own_name(key.removeprefix("grad_"))].grad.clone() for key in keys}
    update(progress)
    if "out_queue" in file:
        queues = [newest_first(queue.rows, queue.pointer, p["B"]) for queue in method.queues]
        found["out_queue"] = torch.stack(queues)
    return found


@pytest.mark.parametrize("name", ["swav_train_step", "swav_train_queue"])
def test_training_steps(name, precision, fixture_file, error_table, balanced) -> None:
    file = fixture_file(name)
    p = file["params"]
    method = build(file, precision)
    rates = Optimization("sgd", 1.0, p["wd"], 256, 1, lambda progress: p["lr"][progress.step], decays_1d=True)
    optimizer = build_optimizer(method, rates)

    def update(progress: Progress) -> None:
        method.before_step(progress)
        set_rates(optimizer, rates, progress)
        optimizer.step()
        method.after_step(progress)

    found = defaultdict(list)
    for number in range(p["S"]):
        balanced.clear()
        for key, value in one_step(method, file, number, precision, update).items():
            found[key].append(value.detach())
        found["out_q"].append(torch.stack([codes[: p["B"]] for _, codes in balanced]))
        found["out_sinkhorn_rows"].append(torch.tensor([rows for rows, _ in balanced]))
    results = {key: torch.stack(values) for key, values in found.items()}
    state = method.state_dict()
    results |= {key: state[own_name(key.removeprefix("out_final_"))] for key in file if key.startswith("out_final_")}
    assert results.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in results.items():
        error_table.check(name, key, value, file[key], precision=precision)
