"""Scores of detectors: what pycocotools' COCOeval says of the same predictions, in one process and in two."""

import io
import json
import os
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fullrank.data import open_source
from fullrank.data.statistics import measure_pixels
from fullrank.evaluation.detection import Training
from fullrank.evaluation.model import Model
from fullrank.evaluation.splits import Part
from fullrank.training.detect import DetectorRun
from fullrank.training.task import Task
from tests.processes import Processes
from tests.unit.data.picture_files import write_folder

pytest.importorskip("pycocotools")
SIDE, PICTURES = 64, 9


def scene(number):
    """Boxes, classes and crowds of a picture; one in four is a crowd, and the last picture has nothing."""
    chance = np.random.default_rng(number)
    count = 0 if number == PICTURES - 1 else 4
    corner, size = chance.integers(0, 36, (count, 2)), chance.integers(8, 28, (count, 2))
    return np.concatenate([corner, corner + size], 1), chance.integers(2, size=count), np.arange(count) == 3


def guesses(number):
    """Boxes near those of the picture, wrong classes among them, scores, and soft masks (k, 1, SIDE, SIDE)."""
    chance = np.random.default_rng(100 + number)
    boxes, labels, _ = scene(number)
    near = np.repeat(boxes, 3, 0) + chance.normal(0, 2.5, (3 * len(boxes), 4))
    far = np.sort(chance.integers(0, SIDE, (2, 2, 2)), 1).reshape(2, 4) + np.array([0, 0, 1, 1])
    found = np.concatenate([near, far]).clip(0, SIDE).astype(np.float32)
    kinds = np.concatenate([np.repeat(labels, 3), [0, 1]])
    wrong = chance.random(len(kinds)) < 0.2
    masks = chance.random((len(found), 1, SIDE, SIDE)) * 0.5
    for mask, (left, top, right, bottom) in zip(masks, found.round().astype(int), strict=True):
        mask[0, top:bottom, left:right] += 0.5
    scores = chance.permutation(len(found)) / len(found) + number / 1000  # no two are the same
    return found, np.where(wrong, 1 - kinds, kinds), scores.astype(np.float32), masks.astype(np.float32)


def annotations():
    """In COCO's format."""
    images, marked = [], []
    for number in range(PICTURES):
        images.append({"id": number + 1, "file_name": f"images/{number}.png", "width": SIDE, "height": SIDE})
        for (left, top, right, bottom), kind, crowd in zip(*scene(number), strict=True):
            corners = [left, top, right, top, right, bottom, left, bottom]
            drawn = {"segmentation": [list(map(int, corners))]}
            if crowd:
                mask = np.zeros((SIDE, SIDE), bool)
                mask[top:bottom, left:right] = True
                edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel()])))
                drawn = {"segmentation": {"size": [SIDE, SIDE], "counts": np.diff([0, *edges, SIDE * SIDE]).tolist()}}
            box = {"bbox": [int(left), int(top), int(right - left), int(bottom - top)], "iscrowd": int(crowd)}
            area = {"area": int((right - left) * (bottom - top)), "category_id": int(kind) + 1}
            marked.append({"id": len(marked) + 1, "image_id": number + 1} | box | area | drawn)
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    return {"images": images, "annotations": marked, "categories": categories}


def write_set(folder):
    files = {}
    for number in range(PICTURES):
        file = io.BytesIO()
        Image.fromarray(np.full((SIDE, SIDE, 3), 20 * number, np.uint8)).save(file, "PNG")
        files[f"images/{number}.png"] = file.getvalue()
    return write_folder(folder / "set", files | {"instances.json": json.dumps(annotations()).encode()})


class Guesses(torch.nn.Module):
    """Stands where the detector stands; knows a picture by its brightness."""

    test_side, transform = SIDE, SimpleNamespace(min_size=(SIDE,))

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        found = []
        for image in images:
            boxes, kinds, scores, masks = guesses(round(float(image.mean()) * 255 / 20))
            each = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(kinds) + 1}
            found.append(each | {"scores": torch.from_numpy(scores), "masks": torch.from_numpy(masks)})
        return found


def judge(folder, fabric):
    """What the library says."""
    source = open_source(folder, annotations="auto")
    model = Model("m", timm.create_model("test_resnet", num_classes=0), "test_resnet", SIDE)
    part = Part(source, np.arange(len(source)))
    task = Task(model, measure_pixels(source), part, part, fabric, say=lambda _: None)
    return DetectorRun(task, Guesses(), Training(1, 2), masks=True, seed=0).judge()


def said_by_coco():
    """AP, AP50 and AP75 of boxes and masks, and AP of boxes of every class."""
    from pycocotools import mask as run_lengths
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = annotations()
    truth.createIndex()
    results = []
    for number in range(PICTURES):
        for (left, top, right, bottom), kind, score, mask in zip(*guesses(number), strict=True):
            encoded = run_lengths.encode(np.asfortranarray(mask[0] > 0.5, np.uint8))
            each = {"image_id": number + 1, "category_id": int(kind) + 1, "score": float(score)}
            results.append(each | {"bbox": [left, top, right - left, bottom - top], "segmentation": encoded})
    scores, by_class = {}, {}
    for kind, word in (("bbox", "box"), ("segm", "mask")):
        given = [
            {k: v for k, v in each.items() if k != ("segmentation" if kind == "bbox" else "bbox")} for each in results
        ]
        judged = COCOeval(truth, truth.loadRes(given), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        scores |= dict(zip((f"{word}_ap", f"{word}_ap50", f"{word}_ap75"), 100 * judged.stats[:3], strict=True))
        precision = judged.eval["precision"][:, :, :, 0, 2]  # of all areas, 100 a picture
        by_class |= {f"{word} {place}": 100 * precision[:, :, place].mean() for place in range(2)}
    return scores, {place: by_class[f"box {place}"] for place in ("0", "1")}


def agree(found):
    scores, by_class = found
    wanted, wanted_by_class = said_by_coco()
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted, abs=1e-3)
    assert by_class == pytest.approx(wanted_by_class, abs=1e-3)
    assert 10 < scores["box_ap75"] < scores["box_ap50"] < 95  # neither nothing nor everything


def test_scores_are_those_of_pycocotools(tmp_path):
    agree(judge(write_set(tmp_path), lightning.Fabric(accelerator="cpu", devices=1)))


def share(rank, folder):
    """One of two processes, started as torchrun starts them."""
    said = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    said |= {"MASTER_ADDR": "localhost", "MASTER_PORT": 1, "TORCHELASTIC_RUN_ID": "none"}
    os.environ.update({name: str(value) for name, value in said.items()})
    fabric = lightning.Fabric(accelerator="cpu", devices=2)
    fabric.launch()
    return judge(folder, fabric)


def test_two_processes_judge_what_one_judges(tmp_path):
    """An odd number of pictures, so that their shares differ."""
    folder = write_set(tmp_path)
    two = Processes(2, tmp_path)
    try:
        first, second = two.run(share, folder)
    finally:
        two.close()
    assert first == second
    agree(first)
    one = judge(folder, lightning.Fabric(accelerator="cpu", devices=1))
    assert first[0] == pytest.approx(one[0])
