"""Projectors: outputs in training and evaluation, gradients, running averages, and the names of the parameters."""

import pytest
import torch
from torch import nn

from fullrank.networks.projector import mlp

PARAM, BUFFER = "in_param_", "out_buffer_"


def build(file: dict, precision: str) -> nn.Sequential:
    """The head with the widths, biases and numbers of the file, holding its parameters."""
    dtype = getattr(torch, precision)
    params = {key.removeprefix(PARAM): torch.tensor(file[key], dtype=dtype) for key in file if key.startswith(PARAM)}
    weights = sorted((int(key.split(".")[0]), value) for key, value in params.items() if value.ndim == 2)
    widths = [weights[0][1].shape[1], *(weight.shape[0] for _, weight in weights)]
    hidden, output = f"{weights[0][0]}.bias", f"{weights[-1][0]}.bias"
    head = mlp(widths, hidden_bias=hidden in params, output_bias=output in params).to(dtype)
    assert dict(head.named_parameters()).keys() == params.keys()
    head.load_state_dict(params, strict=False)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eps, layer.momentum = file["params"]["bn_eps"], file["params"]["bn_momentum"]
    return head


@pytest.mark.parametrize("name", ["head_vicreg", "head_barlow"])
def test_head(name: str, precision: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    head = build(file, precision)
    x, cotangent = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_x", "in_cotangent"))
    x.requires_grad_()
    z = head.train()(x)
    (z * cotangent).sum().backward()
    ours = {"out_z": z, "grad_x": x.grad, "out_z_eval": head.eval()(x)}
    ours |= {f"grad_param_{key}": parameter.grad for key, parameter in head.named_parameters()}
    ours |= {f"{BUFFER}{key}": buffer for key, buffer in head.named_buffers()}
    assert ours.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in ours.items():
        error_table.check(name, key, value, file[key], precision=precision)
