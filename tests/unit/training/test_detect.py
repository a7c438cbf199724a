"""Detectors on a backbone: parts, schedules, stops, and one that learns."""

import copy
import dataclasses
import io
import json
import sys

import lightning
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fullrank.data import open_source
from fullrank.data.objects import Objects
from fullrank.data.statistics import measure_pixels
from fullrank.errors import InputError
from fullrank.evaluation.detection import PUBLISHED, Training
from fullrank.evaluation.model import Model
from fullrank.evaluation.repeated import over_seeds
from fullrank.evaluation.splits import Part
from fullrank.networks.detector import Pyramid, Stages, build_detector, freeze_backbone, level_batch_norm
from fullrank.training.detect import DetectorRun, decayed_groups, detect, with_weights
from fullrank.training.kept import Kept
from fullrank.training.marked import Marked, sides_for
from fullrank.training.task import Task
from tests.unit.data.picture_files import write_folder

pytest.importorskip("pycocotools")
FEW = {"regions": 16, "proposals": 20}  # the published numbers take a processor a minute a step


def drawn(count, seed, masks=True):
    """Pictures with one or two bright squares, red or green, and their annotations in COCO's format."""
    chance = np.random.default_rng(seed)
    files, images, marked = {}, [], []
    for number in range(count):
        picture = chance.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        for place in range(1 + number % 2):
            side, kind = int(chance.integers(14, 26)), int(chance.integers(2))
            left, top = int(chance.integers(0, 32 - side // 2) + 32 * place * 0.5), int(chance.integers(0, 64 - side))
            picture[top : top + side, left : left + side] = (230, 20, 20) if kind else (20, 230, 20)
            corners = [left, top, left + side, top, left + side, top + side, left, top + side]
            segmentation = {"segmentation": [corners]} if masks else {}
            box = {"bbox": [left, top, side, side], "category_id": kind + 1, "area": side * side}
            marked.append({"id": len(marked) + 1, "image_id": number, "iscrowd": 0, **box, **segmentation})
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files[f"images/{seed}_{number}.png"] = file.getvalue()
        images.append({"id": number, "file_name": f"images/{seed}_{number}.png", "width": 64, "height": 64})
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    return files, json.dumps({"images": images, "annotations": marked, "categories": categories}).encode()


def task(tmp_path, backbone="test_resnet", count=8, masks=True):
    train, test = drawn(count, 0, masks), drawn(4, 1, masks)
    files = train[0] | test[0] | {"instances_train.json": train[1], "instances_test.json": test[1]}
    path = write_folder(tmp_path / "set", files)
    source, other = (open_source(path, split, annotations="auto") for split in ("train", "test"))
    torch.manual_seed(0)
    model = Model("m", timm.create_model(backbone, num_classes=0).eval(), backbone, 64)
    parts = Part(source, np.arange(len(source))), Part(other, np.arange(len(other)))
    return Task(
        model, measure_pixels(source), *parts, lightning.Fabric(accelerator="cpu", devices=1), say=lambda _: None
    )


def test_stages_are_those_of_timm():
    torch.manual_seed(0)
    network, images = timm.create_model("test_resnet", num_classes=0).eval(), torch.randn(2, 3, 64, 64)
    wanted = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    wanted.load_state_dict(network.state_dict(), strict=False)
    stages = Stages(network)
    with torch.no_grad():
        found = stages(images)
        for place, each in enumerate(wanted(images)):
            torch.testing.assert_close(found[str(place)], each)
    assert stages.widths == wanted.feature_info.channels()


def test_a_network_without_stages_is_refused():
    with pytest.raises(InputError, match="detection needs a backbone with stages"):
        Pyramid(timm.create_model("test_vit", num_classes=0), torch.nn.BatchNorm2d)


@pytest.mark.parametrize(("kind", "masks"), [("c4", False), ("fpn", False), ("fpn", True)])
def test_every_detector_trains_one_step_and_finds(kind, masks):
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0)
    options = {"short_sides": (64, 80), "test_side": 64, "mean": (0.5,) * 3, "std": (0.2,) * 3} | FEW
    built = build_detector(backbone, 2, kind=kind, masks=masks, **options)
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]
    target = {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([2])}
    if masks:
        target["masks"] = torch.ones(1, 64, 80, dtype=torch.uint8)
    targets = [target, {**target, "masks": torch.ones(1, 70, 64, dtype=torch.uint8)} if masks else target]
    losses = built(images, targets)
    assert ("loss_mask" in losses) == masks
    sum(losses.values()).backward()
    learning = [name for name, value in built.named_parameters() if value.grad is None]
    assert not [name for name in learning if "fc" not in name], learning
    found = built.eval()(images)
    assert {"boxes", "labels", "scores"} <= found[0].keys()


def test_a_detector_learns(tmp_path):
    """Bright squares, in a minute's training: 31 % here, where 0 % is what nothing learnt gives."""
    made = task(tmp_path, count=24, masks=False)
    found = detect(made, steps=60, batch_size=4, learning_rate=0.32, detector="c4", **FEW)
    assert found.scores["box_ap50"] > 15


def test_what_judging_needs_is_asked_for_before_training(tmp_path, monkeypatch):
    made, begun = task(tmp_path, count=4, masks=False), []
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"need pycocotools: pip install 'fullrank\[detection\]'"):
        detect(dataclasses.replace(made, track=lambda *given: begun.append(given)), steps=1, **FEW)
    assert not begun


def test_a_frozen_backbone_stays(tmp_path):
    made = task(tmp_path)
    torch.manual_seed(0)
    options = {"short_sides": (64,), "test_side": 64, "mean": made.pixels.mean, "std": made.pixels.std} | FEW
    for kind in ("c4", "fpn"):
        built = build_detector(with_weights(made.model.backbone, "frozen"), 2, kind=kind, masks=False, **options)
        freeze_backbone(built)
        before = {name: value.clone() for name, value in built.state_dict().items()}
        DetectorRun(made, built, Training(1, batch_size=1), masks=False, seed=0).train("frozen", Kept(made), "one")
        same = {name for name, value in built.state_dict().items() if torch.equal(value, before[name])}
        own = [name for name in before if "stages.backbone" in name or "backbone.parts" in name or "layer4" in name]
        assert own
        assert set(own) <= same
        assert len(same) < len(before)


def test_scratch_has_other_weights_and_the_rest_has_the_same(tmp_path):
    backbone = task(tmp_path).model.backbone
    same, other = with_weights(backbone, "finetuned"), with_weights(backbone, "scratch")
    first, kept, drawn = (next(each.parameters()) for each in (backbone, same, other))
    assert torch.equal(kept, first)
    assert not torch.equal(drawn, first)
    with pytest.raises(InputError, match="unknown variant 'tuned'"):
        with_weights(backbone, "tuned")


def test_the_published_rates():
    moco, vicreg = PUBLISHED["moco voc"], PUBLISHED["vicreg voc"]
    assert moco.rate(0) == pytest.approx(0.02 * 0.001)
    assert moco.rate(50) == pytest.approx(0.02 * (0.001 + 0.999 * 0.5))
    assert [round(moco.rate(step), 6) for step in (100, 17_999, 18_000, 21_999, 22_000)] == [
        0.02,
        0.02,
        0.002,
        0.002,
        0.0002,
    ]
    assert vicreg.rate(0) == pytest.approx(0.1 * 0.333)
    coco = PUBLISHED["infomin coco"]
    assert [round(coco.rate(step), 6) for step in (59_999, 60_000, 80_000)] == [0.02, 0.002, 0.0002]
    assert dataclasses.replace(moco, batch_size=4).rate(200) == pytest.approx(0.005)


def test_flips_turn_pictures_boxes_and_masks_together(tmp_path):
    made = task(tmp_path)
    plain, flipped = (Marked(made.train, made.pixels, masks=True, flips=flips) for flips in (False, True))
    seen = set()
    for number in range(12):
        image, _ = plain[0, number]
        other, turned = flipped[0, number]
        is_flipped = torch.equal(other, image.flip(-1))
        seen.add(is_flipped)
        assert is_flipped or torch.equal(other, image)
        for box, mask in zip(turned["boxes"].long().tolist(), turned["masks"], strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert other[:, box[1] : box[3], box[0] : box[2]].amax(0).min() > 0.8  # the square is bright
    assert seen == {True, False}


def test_a_stopped_task_goes_on_to_the_same_end(tmp_path, monkeypatch):
    options = {
        "variants": ("finetuned", "scratch"),
        "steps": 2,
        "batch_size": 4,
        "detector": "fpn",
        "masks": False,
    } | FEW
    whole = detect(task(tmp_path / "a"), **options)
    monkeypatch.setattr("fullrank.training.detect.SAVE_SECONDS", -1.0)
    lines = []

    def stop(words):
        lines.append(words)
        if words.startswith("scratch  step 1"):
            raise KeyboardInterrupt

    made = dataclasses.replace(task(tmp_path / "b"), checkpoint=tmp_path / "d.ckpt")
    with pytest.raises(KeyboardInterrupt):
        detect(dataclasses.replace(made, say=stop), **options)
    said = []
    again = detect(dataclasses.replace(made, say=said.append), **options)
    assert again.details == whole.details
    assert [words.split("  loss")[0] for words in said] == ["scratch  step 2/2"]


def test_small_pictures_keep_their_size(tmp_path):
    made = task(tmp_path)
    assert sides_for(made.train, (), (480, 800)) == ((64,), 64)
    assert sides_for(made.train, (48, 80), (480, 800)) == ((48, 80), 80)


def test_precise_batch_norm_is_the_mean_over_batches():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(3)
    batches = [torch.randn(8, 3) + n for n in range(4)]
    level_batch_norm(norm, batches, norm)
    torch.testing.assert_close(norm.running_mean, torch.stack([each.mean(0) for each in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([each.var(0) for each in batches]).mean(0))
    assert norm.momentum == 0.1


def test_every_seed_is_a_detector_of_its_own(tmp_path):
    said = []
    made = dataclasses.replace(task(tmp_path, count=4), say=said.append)
    found = over_seeds(lambda seed: detect(made, steps=1, batch_size=2, masks=False, seed=seed, **FEW), 0, 2)
    assert len(set(said)) == 2  # two losses
    assert set(found.details) == {"finetuned", "seed=0", "seed=1"}
    assert {"box_ap", "box_ap_std", "voc_ap50"} <= set(found.scores)
    assert found.details["finetuned"] == found.scores


def test_boxes_are_cut_at_the_border_of_the_picture(tmp_path):
    """Of a table that says no sizes."""
    made = task(tmp_path, count=4)
    source = copy.copy(made.train.source)
    boxes = np.array([[-5, 10, 20, 90], [10, 10, 30, 30], [70, 5, 80, 9]], np.float32)
    masks = np.zeros((3, 64, 64), bool)
    masks[1, 10:30, 10:30] = True
    marked = Objects(boxes, np.arange(3), np.zeros(3, bool), lambda: masks)
    source.objects = [marked] * len(source)
    _, target = Marked(Part(source, np.arange(1)), made.pixels, masks=True, flips=False)[0, 0]
    assert target["boxes"].tolist() == [[0, 10, 20, 64], [10, 10, 30, 30]]
    assert target["labels"].tolist() == [1, 2]
    assert target["masks"].shape == (2, 64, 64)
    assert target["masks"][1].sum() == 400


def test_norms_do_not_decay():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 1))
    network[2].requires_grad_(False)
    decayed, free = decayed_groups(network, 0.1)
    assert [tuple(value.shape) for value in decayed["params"]] == [(4, 3, 3, 3), (4,)]
    assert [tuple(value.shape) for value in free["params"]] == [(4,), (4,)]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
