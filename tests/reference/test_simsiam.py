"""SimSiam: the loss, and heads, loss and statistics through the method."""

import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, get
from fullrank.networks import Switches
from tests.reference.state import load, tensor


def test_loss(precision, fixture_file, error_table) -> None:
    file = fixture_file("simsiam_loss")
    given = {key: tensor(file, f"in_{key}", precision).requires_grad_() for key in ("p1", "p2", "z1", "z2")}
    loss = losses.simsiam(given["p1"], given["p2"], given["z1"].detach(), given["z2"].detach())["loss"]
    loss.backward()
    error_table.check("simsiam_loss", "out_loss", loss, file["out_loss"], precision=precision)
    for key, rows in given.items():
        gradient = torch.zeros_like(rows) if rows.grad is None else rows.grad
        error_table.check("simsiam_loss", f"grad_{key}", gradient, file[f"grad_{key}"], precision=precision)


def own_name(key: str) -> str:
    return key.replace("encoder.fc.", "network.branch.projector.").replace("predictor.", "network.predictor.")


def build(file: dict, precision: str) -> nn.Module:
    """The method around an identity, with the weights of the file."""
    p = file["params"]
    backbone = nn.Identity()
    backbone.num_features = p["f"]
    switches = Switches(stop_gradient=True, predictor=f"{p['pd']}-{p['d']}")
    method = get("simsiam")(backbone, projector=f"{p['f']}-{p['f']}-{p['d']}", switches=switches)
    method.to(getattr(torch, precision))
    keys = [key.removeprefix("in_param_") for key in file if key.startswith("in_param_")]
    return load(method, file, {own_name(key): f"in_param_{key}" for key in keys}, precision)


def test_heads_through_the_method(precision, fixture_file, error_table) -> None:
    name = "simsiam_heads"
    file = fixture_file(name)
    method = build(file, precision)
    flags = file["params"]["trainable_flags"]
    parameters = dict(method.named_parameters())
    assert {key: parameters[own_name(key)].requires_grad for key in flags} == flags
    views = [tensor(file, key, precision).requires_grad_() for key in ("in_x1", "in_x2")]
    step = method(Batch(views, torch.arange(file["params"]["n"])))
    step.loss.backward()
    # Running statistics: view 1 first, then view 2, through one network.
    state = {key: value.clone() for key, value in method.state_dict().items()}
    found = {key: state[own_name(key.removeprefix("out_buffer_"))] for key in file if key.startswith("out_buffer_")}
    found |= {"out_loss": step.loss, "grad_x1": views[0].grad, "grad_x2": views[1].grad}
    found |= {f"out_z{v + 1}": z for v, z in enumerate(step.embeddings)}
    found |= {f"out_p{v + 1}": method.network.predictor(z) for v, z in enumerate(step.embeddings)}
    for key in flags:
        parameter = parameters[own_name(key)]
        found[f"grad_param_{key}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)
