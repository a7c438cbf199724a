"""Fine-tuning against a loop in plain torch; subsets, seeds, stops and two processes."""

import copy
import dataclasses
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import precision_recall_curve
from torch import nn

from fullrank.data import open_source
from fullrank.data.arrays import Arrays
from fullrank.data.source import Chosen, UnreadableImage
from fullrank.data.statistics import measure_pixels
from fullrank.errors import InputError
from fullrank.evaluation.finetuning import PUBLISHED
from fullrank.evaluation.model import Model
from fullrank.evaluation.repeated import over_seeds
from fullrank.evaluation.splits import Part
from fullrank.evaluation.subsets import listed, share_of_classes, share_of_targets
from fullrank.schedules import Progress
from fullrank.training.finetune import fine_tuner, finetune, recipe_of
from fullrank.training.task import Task


def task(checkpoint=None, **parts):
    source = open_source("shapes:N=120,size=32")
    test = open_source("shapes:N=120,size=32", "test")
    torch.manual_seed(0)
    model = Model("m", timm.create_model("test_resnet", num_classes=0).eval(), "test_resnet", 32)
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    kept = np.arange(24)
    said = []
    made = Task(
        model,
        measure_pixels(source),
        Part(source, np.arange(120)),
        Part(test, kept),
        fabric,
        checkpoint=checkpoint,
        say=said.append,
    )
    return dataclasses.replace(made, **parts), said


def test_a_share_of_every_class():
    labels = np.repeat([0, 1, 3], [10, 20, 40])
    chosen = share_of_classes(labels, 30, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [3, 6, 0, 12]
    assert (np.diff(chosen) > 0).all()
    assert (chosen == share_of_classes(labels, 30, seed=0)).all()
    assert (chosen != share_of_classes(labels, 30, seed=1)).any()
    with pytest.raises(InputError, match="1 % of the 10 pictures of class 0 is less than one"):
        share_of_classes(labels, 1, seed=0)
    with pytest.raises(InputError, match="percent is 0"):
        share_of_classes(labels, 0, seed=0)


def test_a_list_of_pictures(tmp_path):
    names = [f"train/n0{n % 3}/n0{n % 3}_{n}.JPEG" for n in range(12)]
    (tmp_path / "1percent.txt").write_text("n00_3.JPEG\nn01_7.JPEG 1\n\nn00_0.JPEG\n")
    assert listed(tmp_path / "1percent.txt", names, "set").tolist() == [0, 3, 7]
    (tmp_path / "other.txt").write_text("x.JPEG\n")
    with pytest.raises(InputError, match="names none of the 12 pictures of set"):
        listed(tmp_path / "other.txt", names, "set")
    with pytest.raises(InputError, match="No such file"):
        listed(tmp_path / "none.txt", names, "set")


def test_recipes_are_those_of_the_nearest_share():
    assert recipe_of("vicreg", 1) is PUBLISHED["vicreg", 1]
    assert recipe_of("vicreg", 5) is PUBLISHED["vicreg", 10]
    assert recipe_of("vicreg", 100) is PUBLISHED["vicreg", 10]
    with pytest.raises(InputError, match="unknown fine-tuning recipe 'moco'"):
        recipe_of("moco", 1)


def test_every_step_is_that_of_plain_torch(monkeypatch):
    """Two learning rates, momentum, cosine by epoch, batch norm in training mode."""
    made, _ = task()
    recipe = dataclasses.replace(PUBLISHED["vicreg", 10], epochs=2)
    tuner = fine_tuner(made, Chosen(made.train.source, np.arange(120)), recipe, 40, seed=3)
    backbone, head = (part for part in timm_copy(made.model.backbone, tuner.network.module))
    groups = [{"params": backbone.parameters()}, {"params": head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
    for group, rate in zip(optimizer.param_groups, (0.01 * 40 / 256, 0.1 * 40 / 256), strict=True):
        group["initial_lr"] = group["lr"] = rate
    schedule.base_lrs = [group["lr"] for group in optimizer.param_groups]
    chance = torch.Generator().manual_seed(1)
    for step in range(6):
        images, index = torch.randn(40, 3, 32, 32, generator=chance), torch.randperm(120, generator=chance)[:40]
        labels = torch.from_numpy(made.train.source.labels)[index]
        monkeypatch.setattr(tuner.feed, "views", lambda _, i=images, n=index: type("B", (), {"views": [i], "index": n}))
        tuner._step(None, Progress(step, 6, 3))
        backbone.train()
        loss = nn.functional.cross_entropy(head(backbone(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 3 == 2:
            schedule.step()
    for ours, theirs in zip(
        tuner.network.module.parameters(), [*backbone.parameters(), *head.parameters()], strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def timm_copy(backbone, network):
    return copy.deepcopy(network[0]), copy.deepcopy(network[1])


def test_the_network_that_is_judged_stays_as_it_was():
    made, _ = task()
    before = {name: value.clone() for name, value in made.model.backbone.state_dict().items()}
    finetune(made, epochs=1, batch_size=40)
    for name, value in made.model.backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_seeds_have_pictures_and_scores_of_their_own():
    made, said = task()
    result = over_seeds(lambda seed: finetune(made, percent=50, epochs=1, batch_size=30, seed=seed), 4, 2)
    assert list(result.details) == ["seed=4", "seed=5"]
    assert len(said) == 2
    again = finetune(task()[0], percent=50, epochs=1, batch_size=30, seed=5)
    assert again.scores == result.details["seed=5"]
    assert again.scores != result.details["seed=4"]


def several(task_of):
    """The same task with each label as targets of all classes, and one answer in ten unsure."""
    made, _ = task_of
    chance = np.random.default_rng(0)

    def targeted(part):
        targets = (part.source.labels[:, None] == np.arange(len(part.source.classes))).astype(np.int8)
        targets[chance.random(targets.shape) < 0.1] = -1
        source = copy.copy(part.source)
        source.targets = targets
        return Part(source, part.indices)

    return dataclasses.replace(made, train=targeted(made.train), test=targeted(made.test))


def test_several_labels_are_one_cross_entropy_a_class(monkeypatch):
    made = several(task())
    recipe = dataclasses.replace(PUBLISHED["vicreg", 10], epochs=2)
    pictures = Chosen(made.train.source, np.arange(120))
    tuner = fine_tuner(made, pictures, recipe, 40, seed=3)
    backbone, head = (part for part in timm_copy(made.model.backbone, tuner.network.module))
    targets = torch.from_numpy(pictures.targets)
    shares = [(float((column == 1).sum()) + 1) / (float((column >= 0).sum()) + 2) for column in targets.T]
    assert head.bias.tolist() == pytest.approx([np.log(share / (1 - share)) for share in shares])
    images, index = torch.randn(40, 3, 32, 32), torch.randperm(120)[:40]
    given = SimpleNamespace(views=[images], index=index)
    monkeypatch.setattr(tuner.feed, "views", lambda _: given)
    tuner._step(None, Progress(0, 6, 3))
    logits = head(backbone.train()(images))
    sure = targets[index] >= 0
    loss = nn.functional.binary_cross_entropy_with_logits(logits[sure], targets[index][sure].float(), reduction="sum")
    gradients = torch.autograd.grad(loss / 40, head.parameters())
    for before, after, gradient in zip(head.parameters(), tuner.network.module[1].parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.1 * 40 / 256 * gradient, rtol=1e-4, atol=1e-6)


def test_several_labels_are_judged_as_on_voc():
    made = several(task())
    tuner = fine_tuner(made, Chosen(made.train.source, np.arange(120)), PUBLISHED["vicreg", 10], 40, seed=3)
    kept, known = [], []
    keep = tuner.answers.keep
    tuner.answers.keep = lambda logits, targets: (kept.append(logits), known.append(targets), keep(logits, targets))[2]
    scores = tuner.judge()
    logits, targets = torch.cat(kept).numpy(), torch.cat(known).numpy()
    classes, each = np.flatnonzero((targets == 1).any(0)), []
    for place in classes:
        sure = targets[:, place] >= 0
        precision, recall, _ = precision_recall_curve(targets[sure, place], logits[sure, place])
        each.append(np.sum(-np.diff(recall) * np.maximum.accumulate(precision)[:-1]))  # VOC's: the best at this recall
    assert scores["map"] == pytest.approx(100 * np.mean(each))
    assert list(tuner.by_class) == list(map(str, classes))


def test_fine_tuning_on_several_labels_learns_and_says_what_it_quotes():
    made = several(task())
    lines = []
    result = finetune(dataclasses.replace(made, say=lines.append), percent=50, epochs=2, batch_size=20)
    assert list(result.scores) == ["map", "map_11", "best"]
    assert 60 <= result.n_train <= 65
    assert "mAP" in lines[0]


def test_classes_that_cannot_be_learnt_are_not_judged():
    made = several(task())
    made.train.source.targets[:, 2] = 0
    tuner = fine_tuner(made, Chosen(made.train.source, np.arange(120)), PUBLISHED["vicreg", 10], 40, seed=3)
    tuner.judge()
    assert "2" not in tuner.by_class
    assert "classes are left out" in tuner.notes[0]


def test_fewer_pictures_a_step_than_devices_are_refused():
    made, _ = task()
    fabric = SimpleNamespace(world_size=2, global_rank=0, device=torch.device("cpu"))
    with pytest.raises(InputError, match="1 pictures a step are none for 2 devices"):
        finetune(dataclasses.replace(made, fabric=fabric), batch_size=1)


def test_what_was_read_and_found_is_kept(tmp_path):
    """Of a run that is done: the number of pictures that could be read, and the scores of classes."""
    place = tmp_path / "t.ckpt"
    made, _ = task(place)
    source = copy.copy(made.test.source)
    read = type(source).read

    def broken(index):
        if index == 3:
            raise UnreadableImage("3", "broken")
        return read(source, index)

    source.read = broken
    made = dataclasses.replace(made, test=Part(source, made.test.indices))
    first = finetune(made, epochs=1, batch_size=40)
    again = finetune(made, epochs=1, batch_size=40)
    assert first.n_test == again.n_test == 23
    assert first.by_class == again.by_class


def test_a_share_of_pictures_with_several_labels():
    chance = np.random.default_rng(0)
    targets = (chance.random((400, 5)) < [0.3, 0.2, 0.02, 0.5, 0.0]).astype(np.int8)
    chosen = share_of_targets(targets, 10, seed=0)
    assert (np.diff(chosen) > 0).all()
    counts, whole = targets[chosen].sum(0), targets.sum(0)
    assert (counts >= np.maximum(np.round(whole / 10), whole > 0)).all()
    assert 40 <= len(chosen) <= 45  # rare classes take a few more
    assert len(share_of_targets(targets[:, [0, 1, 3]], 10, seed=0)) == 40
    assert (chosen == share_of_targets(targets, 10, seed=0)).all()
    assert not np.array_equal(chosen, share_of_targets(targets, 10, seed=1))
    assert share_of_targets(targets, 100, seed=0).tolist() == list(range(400))
    with pytest.raises(InputError, match="percent is 101"):
        share_of_targets(targets, 101, seed=0)


THREE = {"epochs": 3, "batch_size": 40}


@pytest.fixture
def stopped(tmp_path):
    """The file of a run of three epochs that was stopped in the second."""
    place, lines = tmp_path / "t.ckpt", []

    def stop_at_second(words):
        lines.append(words)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(dataclasses.replace(task(place)[0], say=stop_at_second), **THREE)
    return place


def test_a_stopped_run_goes_on_to_the_same_end(stopped):
    resumed, said = task(stopped)
    assert finetune(resumed, **THREE).scores == finetune(task()[0], **THREE).scores
    assert len(said) == 2


def relabelled(part):
    source = copy.copy(part.source)
    source.labels = np.roll(source.labels, 1)
    return Part(source, part.indices)


OTHERS = {
    "seed": {"seed": 1},
    "rate": {"learning_rate": 0.5},
    "labels": {"percent": 50, "batch_size": 20},
    "test part": {"test": lambda made: Part(made.test.source, np.arange(12))},
    "answers": {"train": lambda made: relabelled(made.train)},
    "size": {"model": lambda made: dataclasses.replace(made.model, image_size=48)},
    "precision": {"precision": lambda made: "bf16"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_run_does_not_go_on_with_it(other, stopped):
    made, said = task(stopped)
    made = dataclasses.replace(made, **{name: change(made) for name, change in other.items() if callable(change)})
    finetune(made, **THREE | {name: value for name, value in other.items() if not callable(value)})
    assert len(said) == 3


def test_what_is_done_is_not_done_again_and_nothing_of_another_network_is_taken(tmp_path):
    place = tmp_path / "t.ckpt"
    made, first = task(place)
    one = finetune(made, epochs=1, batch_size=40)
    again, said = task(place)
    both = over_seeds(lambda seed: finetune(again, epochs=1, batch_size=40, seed=seed), 0, 2)
    assert (len(first), len(said)) == (1, 1)  # the first seed's epoch was there
    assert both.details["seed=0"] == one.scores
    torch.manual_seed(5)
    other = Model("m", timm.create_model("test_resnet", num_classes=0).eval(), "test_resnet", 32)
    retrained, said = task(place, model=other)
    finetune(retrained, epochs=1, batch_size=40)
    assert len(said) == 1


def test_it_learns():
    """On pictures that are told by their brightness; labels of the classes are not numbered in order."""
    chance = np.random.default_rng(0)
    labels = np.arange(160) % 2
    images = (chance.integers(0, 100, (160, 32, 32, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    source = Arrays(images, labels)
    made, _ = task(
        train=Part(source, np.arange(100)), test=Part(source, np.arange(100, 160)), pixels=measure_pixels(source)
    )
    assert finetune(made, epochs=6, batch_size=20, learning_rate=0.1, head_learning_rate=0.5).scores["top1"] > 90
