"""Groups, rates and what a run may change of a published optimiser."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fullrank.errors import InputError
from fullrank.methods import Optimization
from fullrank.schedules import Progress, Schedule
from fullrank.training.optimizer import build_optimizer, optimization_for, set_rates


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.position = nn.Parameter(torch.zeros(1, 4, 3))
        self.predictor = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


def group_of(optimizer, parameter):
    return next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))


def test_groups_by_decay_rate_and_schedule():
    network = Network()
    published = Optimization(
        "sgd", 0.1, 0.5, 512, 1, Schedule(0, end_factor=0.0), bias_learning_rate=0.01, no_decay=("position",),
        constant_rate=("predictor.*",),
    )  # fmt: skip
    optimizer = build_optimizer(network, published)
    set_rates(optimizer, published, Progress(5, 10, 10))
    expected = {
        "first.weight": (0.1, 0.5), "first.bias": (0.01, 0.0), "position": (0.1, 0.0),
        "predictor.weight": (0.2, 0.5), "predictor.bias": (0.02, 0.0),
    }  # fmt: skip
    for name, (rate, decay) in expected.items():
        group = group_of(optimizer, network.get_parameter(name))
        assert (group["lr"], group["weight_decay"]) == (pytest.approx(rate), decay), name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(expected)


def test_weight_decay_goes_along_its_own_cosine():
    network = nn.Linear(2, 2)
    published = Optimization("adamw", 0.1, 0.04, 256, 1, Schedule(2.0), weight_decay_end=0.4)
    optimizer = build_optimizer(network, published)
    decays = []
    for step in (0, 5, 10):
        set_rates(optimizer, published, Progress(step, 10, 1))
        decays.append(group_of(optimizer, network.weight)["weight_decay"])
        assert group_of(optimizer, network.bias)["weight_decay"] == 0.0
    assert decays == pytest.approx([0.04, 0.22, 0.4])


def test_biases_decay_where_published():
    network = nn.Linear(2, 2)
    published = Optimization("sgd", 0.1, 0.5, 256, 1, decays_1d=True)
    assert [group["weight_decay"] for group in build_optimizer(network, published).param_groups] == [0.5]


def settings(**changed):
    names = ("optimizer", "learning_rate", "bias_learning_rate", "weight_decay", "weight_decay_end", "batch_size")
    names += ("epochs",)
    return SimpleNamespace(**dict.fromkeys((*names, "end_factor", "warmup_epochs")) | changed)


def test_another_optimiser_takes_no_particulars_of_the_published_one():
    published = Optimization("sgd", 0.1, 0.5, 256, 1, decays_1d=True, options={"nesterov": True})
    same = optimization_for(published, settings(learning_rate=0.2, end_factor=0.5))
    assert (same.learning_rate, same.schedule.end_factor, same.options) == (0.2, 0.5, {"nesterov": True})
    other = optimization_for(published, settings(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05))
    assert (other.options, other.decays_1d, other.weight_decay) == ({}, False, 0.05)


def test_weight_decay_may_begin_at_nothing():
    network = nn.Linear(2, 2)
    rising = Optimization("adamw", 0.1, 0.0, 256, 1, Schedule(0), weight_decay_end=0.4)
    optimizer = build_optimizer(network, rising)
    set_rates(optimizer, rising, Progress(5, 10, 1))
    assert group_of(optimizer, network.weight)["weight_decay"] == pytest.approx(0.2)


def test_an_unknown_optimiser_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'lars'"):
        build_optimizer(nn.Linear(2, 2), Optimization("larss", 0.1, 0.0, 256, 1))
