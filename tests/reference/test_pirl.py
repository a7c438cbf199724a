"""PIRL: steps against its memory bank, from the outputs of the heads and from features, through the method."""

import pytest
import torch
from torch import nn

from fullrank.methods import Batch, DataFacts, get
from fullrank.methods.pirl import PIRL
from tests.reference.state import load, tensor


def build(width: int, file: dict, **options) -> PIRL:
    """The method around an identity, with the bank of the file."""
    p = file["params"]
    backbone = nn.Identity()
    backbone.num_features = width
    numbers = {"temperature": p["T"], "momentum": p["momentum"], "negatives": p["K"]}
    method = get("pirl")(backbone, facts=DataFacts(samples=p["N"]), **numbers, **options).double()
    method.memory.bank.rows.copy_(tensor(file, "in_memory"))
    return method


def draw_from(method: PIRL, *drawn: torch.Tensor) -> None:
    """Let the bank draw these rows, call by call."""
    waiting = list(drawn)
    method.memory.bank.draw = lambda index, negatives: waiting.pop(0)


@pytest.mark.parametrize("name", ["pirl_vissl_nce", "pirl_vissl_infonce"])
def test_steps(name, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    options = {"softmax": p["loss_type"] == "cross_entropy"}
    options |= dict(zip(("puzzle_weight", "image_weight"), p["loss_weights"], strict=True))
    method = build(p["D"], file, projector="none", **options)
    found = {}
    for step in range(p["steps"]):
        target = tensor(file, f"in_target_{step}")
        kept = target != -1  # the authors' code drops these rows first of all; our feeds give none
        given = {part: tensor(file, f"in_{part}_{step}") for part in ("images", "patches")}
        for rows in given.values():
            rows.requires_grad_()
        draw_from(method, *(tensor(file, f"in_idx_{part}_{step}") for part in ("patches", "images")))
        terms = method.contrast(given["images"][kept], given["patches"][kept], target[kept])
        weights = method.weights
        loss = sum(weights[part] * term for part, term in terms.items())
        loss.backward()
        found |= {f"out_loss_{step}": loss, f"out_memory_{step}": method.memory.bank.rows.clone()}
        found |= {f"grad_{part}_{step}": rows.grad for part, rows in given.items()}
        if not method.memory.softmax:
            found[f"out_Z_{step}"] = method.memory.log_partition.exp()
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])


def own_names(file: dict) -> dict[str, str]:
    """Our names of the parameters -> theirs, without in_: layers are counted with their activations between."""
    names = {}
    for key in (key.removeprefix("in_") for key in file if key.startswith(("in_head", "in_jig"))):
        part, rest = key.rsplit("_", 1)
        kind, layer = "weight" if rest[0] == "w" else "bias", rest[1:]
        place = {"head": "branch.projector.", "jig_fc1": "piece_projector.", "jig_fc2": "join."}[part]
        names[place + (f"{2 * int(layer)}." if layer else "") + kind] = key
    return names


def test_from_features_in_another_code(fixture_file, error_table, logits) -> None:
    """A softmax, the same draws for both, and in perceptrons no activation behind the last layer of the pieces."""
    name = "pirl_pycontrast"
    file = fixture_file(name)
    p, names = file["params"], own_names(file)
    widths = [len(file[f"in_{key}"]) for own, key in names.items() if own.startswith("branch") and "weight" in own]
    weights = {"puzzle_weight": p["beta"], "image_weight": 1 - p["beta"]}
    method = build(p["C"], file, projector="-".join(map(str, widths)), softmax=True, **weights)
    if len(widths) > 1:
        method.network.piece_projector = method.network.piece_projector[:-1]
    load(method.network, file, {own: f"in_{key}" for own, key in names.items()})
    features = {key: tensor(file, f"in_{key}").requires_grad_() for key in ("feat", "feat_jig")}
    order = tensor(file, "in_perm")
    pieces = features["feat_jig"].view(*order.shape, -1).gather(1, order[..., None].expand(*order.shape, p["C"]))
    draw_from(method, *[tensor(file, "in_idx")] * 2)
    step = method(Batch([features["feat"], pieces], tensor(file, "in_index")))
    step.loss.backward()
    parameters = dict(method.network.named_parameters())
    found = {
        "out_f": nn.functional.normalize(step.embeddings[0]),
        "out_f_jig": nn.functional.normalize(step.embeddings[1]),
        "out_logits_jig": logits[0],
        "out_logits": logits[1],
        "out_loss": step.loss,
        "out_loss_jig": step.terms["puzzle"],
        "out_loss_image": step.terms["image"],
        "out_memory": method.memory.bank.rows,
        **{f"grad_{key}": rows.grad for key, rows in features.items()},
        **{f"grad_{key}": parameters[own].grad for own, key in names.items()},
    }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])
