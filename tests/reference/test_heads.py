"""Projectors: outputs in training and evaluation, gradients, running averages, and the names of the parameters."""

import numpy as np
import pytest
import torch
from torch import nn

from fullrank.networks.projector import mlp

PARAM, BUFFER = "in_param_", "out_buffer_"
KERAS_RATE = float(np.float32(0.1))  # Keras keeps the rate of its moving averages in float32


def torch_name(key: str, simclr: bool) -> str:
    """The name that a parameter or buffer has in our Sequential, whose k-th hidden layer stands at 3 k."""
    renamed = {"kernel": "weight", "w": "weight", "gamma": "weight", "scale": "weight", "beta": "bias", "b": "bias"}
    renamed |= {"offset": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    owner, _, last = key.rpartition(".")
    if simclr:
        number, _, kind = owner.partition(".")
        return f"{3 * int(number) + (kind == 'bn' or not kind)}.{renamed[last]}"
    if owner in ("linear", "linear_1", "batch_norm"):
        return f"{ {'linear': 0, 'batch_norm': 1, 'linear_1': 3}[owner] }.{renamed[last]}"
    return key


def as_torch(name: str, key: str, value, precision: str) -> torch.Tensor:
    """Kernels of Keras and Haiku are (in, out), and Haiku's norms (1, h)."""
    tensor = torch.tensor(value, dtype=getattr(torch, precision))
    if key.endswith((".kernel", ".w")):
        return tensor.T.contiguous()
    return tensor.flatten() if name == "head_byol" and tensor.ndim == 2 else tensor


def read(name: str, file: dict, prefix: str, precision: str) -> dict[str, torch.Tensor]:
    simclr = name in ("head_simclr_2layer", "head_simclr_3layer")
    keys = [key.removeprefix(prefix) for key in file if key.startswith(prefix)]
    return {
        torch_name(key, simclr): as_torch(name, key, file[prefix + key], precision)
        for key in keys
        if not key.endswith("num_batches_tracked")
    }


def build(name: str, file: dict, precision: str) -> nn.Sequential:
    """The head with the widths, biases and numbers of the file, holding its parameters."""
    params = read(name, file, PARAM, precision)
    weights = sorted((int(key.split(".")[0]), value) for key, value in params.items() if value.ndim == 2)
    widths = [weights[0][1].shape[1], *(weight.shape[0] for _, weight in weights)]
    last = weights[-1][0]
    norm = f"{last + 1}.weight" in params
    output_norm = ("affine" if f"{last + 1}.bias" in params else "scale") if norm else "none"
    head = mlp(
        widths, hidden_bias="0.bias" in params, output_bias=f"{last}.bias" in params, output_norm=output_norm
    ).to(getattr(torch, precision))
    assert dict(head.named_parameters()).keys() == params.keys()
    head.load_state_dict(params, strict=False)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eps = file["params"].get("bn_eps", layer.eps)
            layer.momentum = file["params"].get("bn_momentum", KERAS_RATE)
    return head


@pytest.mark.parametrize(
    "name",
    ["head_vicreg", "head_barlow", "head_byol", "head_simclr_2layer", "head_simclr_3layer", "head_simclr_torch"],
)
def test_head(name: str, precision: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    head = build(name, file, precision)
    x, cotangent = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_x", "in_cotangent"))
    x.requires_grad_()
    z = head.train()(x)
    (z * cotangent).sum().backward()
    error_table.check(name, "out_z", z, file["out_z"], precision=precision)
    error_table.check(name, "grad_x", x.grad, file["grad_x"], precision=precision)
    if "out_z_eval" in file:
        error_table.check(name, "out_z_eval", head.eval()(x), file["out_z_eval"], precision=precision)
    gradients = read(name, file, "grad_param_", precision)
    assert gradients.keys() == dict(head.named_parameters()).keys()
    for key, parameter in head.named_parameters():
        error_table.check(name, f"grad_param_{key}", parameter.grad, gradients[key], precision=precision)
    buffers = dict(head.named_buffers())
    for key, theirs in read(name, file, BUFFER, precision).items():
        ours = buffers[key]
        if "moving_variance" in str(list(file)) and key.endswith("running_var"):
            # Keras averages the biased variance, torch the unbiased one: both start from 1 with the same rate.
            ours = 1 - KERAS_RATE + (ours - 1 + KERAS_RATE) * (len(x) - 1) / len(x)
        error_table.check(name, f"{BUFFER}{key}", ours, theirs, precision=precision)
