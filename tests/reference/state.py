"""Weights between the names of a fixture and those of a module."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

Fixture = Mapping[str, object]


def tensor(file: Fixture, key: str, precision: str = "float64") -> torch.Tensor:
    """An array of the file in the given precision; whole numbers stay whole."""
    value = torch.as_tensor(file[key])
    return value.to(getattr(torch, precision)) if value.is_floating_point() else value


def load(module: nn.Module, file: Fixture, names: Mapping[str, str], precision: str = "float64") -> nn.Module:
    """Put arrays into a module: `names` maps its own names (all of its parameters) to keys of the file."""
    state = module.state_dict()
    assert {key for key, _ in module.named_parameters()} <= set(names)
    for own, key in names.items():
        state[own].copy_(tensor(file, key, precision).view_as(state[own]))
    return module


def by_prefix(file: Fixture, prefix: str, rename: Callable[[str], str] = str) -> dict[str, str]:
    """Our names -> keys of the file, for all keys with a prefix; `rename` turns theirs into ours."""
    return {rename(key.removeprefix(prefix)): key for key in file if key.startswith(prefix)}
