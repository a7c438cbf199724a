"""Linear probes as published: against plain torch, on every kind of network, with nothing else trained."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fullrank.data.source import Chosen
from fullrank.errors import InputError
from fullrank.evaluation.map_head import RESNET50, MapHead, published_stage
from fullrank.evaluation.model import Model
from fullrank.schedules import Progress
from fullrank.training.probe import PUBLISHED, linear_as_published, prober
from tests.unit.training.test_finetune import several, task


def vit_task():
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=32, depth=4, num_classes=0).eval()
    return task(model=Model("v", network, "test_vit", 32))[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_schedule_runs_and_trains_the_classifier_alone(name):
    made = vit_task() if name == "dino" else task()[0]
    before = copy.deepcopy(made.model.backbone.state_dict())
    result = linear_as_published(made, schedule=name, epochs=2, batch_size=40)
    assert result.scores["best"] >= result.scores["top1"]
    assert result.settings["schedule"] == name
    for key, value in made.model.backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_unknown_schedules():
    with pytest.raises(InputError, match=r"unknown schedule 'vicregg'.*vicreg"):
        linear_as_published(task()[0], schedule="vicregg")


def test_another_layer():
    made = dataclasses.replace(task()[0], layer="layer2")
    assert linear_as_published(made, epochs=1, batch_size=40).settings["layer"] == "layer2"


@pytest.mark.parametrize(
    ("name", "rate", "decay", "nesterov"), [("vicreg", 0.02, 1e-6, False), ("vicreg places", 0.003, 1e-4, True)]
)
def test_every_step_is_that_of_plain_torch(name, rate, decay, nesterov, monkeypatch):
    made = task()[0]
    probe = PUBLISHED[name]
    assert (probe.optimization.learning_rate, probe.optimization.weight_decay) == (rate, decay)
    rate, decay = 100 * rate, 0.1  # so that decay is seen in float32
    settings = dataclasses.replace(probe.optimization, batch_size=40, epochs=2, learning_rate=rate, weight_decay=decay)
    ours = prober(made, Chosen(made.train.source, np.arange(120)), dataclasses.replace(probe, optimization=settings), 3)
    backbone, head = made.model.backbone.eval(), copy.deepcopy(ours.network.module[1])
    norms = [value for each in head if isinstance(each, nn.BatchNorm2d) for value in each.parameters()]
    others = [value for value in head.parameters() if not any(value is norm for norm in norms)]
    groups = [{"params": others, "weight_decay": decay}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate * 40 / 256, momentum=0.9, nesterov=nesterov)
    chance = torch.Generator().manual_seed(1)
    for step in range(2):  # of the first epoch
        images, index = torch.randn(40, 3, 32, 32, generator=chance), torch.randperm(120, generator=chance)[:40]
        given = SimpleNamespace(views=[images], index=index)
        monkeypatch.setattr(ours.feed, "views", lambda _, given=given: given)
        ours._step(None, Progress(step, 60, 30))
        with torch.no_grad():
            features = backbone.forward_features(images) if norms else backbone(images)
        loss = nn.functional.cross_entropy(head(features), torch.from_numpy(made.train.source.labels)[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mine, theirs in zip(ours.network.module[1].parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3", "layer4"])
def test_the_head_of_a_map_is_the_published_one_at_its_size(layer):
    stage = published_stage(layer)
    assert stage is RESNET50[f"res{int(layer[-1]) + 1}"]
    made, published = MapHead.of_map(stage, (stage.channels, stage.side, stage.side), 5), MapHead.of(stage, 5)
    assert str(made) == str(published)


@pytest.mark.parametrize("side", [1, 2, 4, 10])
def test_heads_of_other_sizes_fit(side):
    for stage in RESNET50.values():
        maps = torch.randn(2, 6, side, side + 1)
        assert MapHead.of_map(stage, maps.shape[1:], 5)(maps).shape == (2, 5)


@pytest.mark.parametrize(("name", "eps"), [("mae", 1e-6), ("obow places", 1e-5), ("obow", None), ("vicreg", None)])
def test_the_norm_before_the_classifier(name, eps):
    made = task()[0]
    head = prober(made, Chosen(made.train.source, np.arange(120)), PUBLISHED[name], 0).network.module[1]
    norms = [(each.eps, each.affine) for each in head if isinstance(each, nn.BatchNorm1d)]
    assert norms == ([] if eps is None else [(eps, False)])


def test_probe_of_several_labels_begins_at_the_log_odds():
    made = several(task())
    result = linear_as_published(made, schedule="mae", epochs=1, batch_size=40)
    assert list(result.scores) == ["map", "map_11", "best"]
    targets = made.train.source.targets
    head = prober(made, Chosen(made.train.source, np.arange(120)), PUBLISHED["obow places"], 0).network.module[1]
    share = ((targets == 1).sum(0) + 1) / ((targets >= 0).sum(0) + 2)
    assert head[-1].bias.tolist() == pytest.approx(np.log(share / (1 - share)).tolist())
