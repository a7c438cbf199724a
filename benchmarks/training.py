"""VICReg on labelled pictures with fullrank and with lightly: kNN accuracy and wall clock, side by side.

    python benchmarks/training.py --data cifar10.tar.xz --backbone test_resnet --stem_stride 2 --epochs 3 \\
        --arms fullrank lightly
    python benchmarks/training.py --data cifar10.tar.xz --backbone test_resnet --stem_stride 2 --epochs 1 \\
        --images 20000 --seeds 1

Both train the same backbone from the same first weights with the same expander, coefficients, batch, optimiser and
schedule for the same epochs, in turn, every run in a process of its own with the environment that its user would have.
lightly is used as its documentation shows (a Lightning module, a DataLoader, its transform, head and loss), with 0, 1
or 2 workers; it gets its pictures from memory, decoded before the clock starts. `seconds` is the wall clock of the
training, for fullrank with its live measures and kNN probes; `whole` also that of opening, checking and decoding the
data, and of the comparison and verdict at the end. Features of both are judged by the same weighted kNN (k 20,
temperature 0.07) on the test part.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image
from torch import nn

import fullrank
from fullrank.cli import SPINS
from fullrank.data import open_pictures
from fullrank.data.source import Source
from fullrank.data.statistics import Pixels, measure_pixels
from fullrank.evaluation.features import Pictures, embed_pictures
from fullrank.evaluation.knn import knn
from fullrank.machine import hardware
from fullrank.methods import Optimization
from fullrank.networks import create_backbone
from fullrank.schedules import Progress, Schedule
from fullrank.training.optimizer import build_optimizer

ARMS = {"fullrank": 0, "lightly": 0, "lightly, 1 worker": 1, "lightly, 2 workers": 2}  # workers


class FromMemory(torch.utils.data.Dataset):
    """Decoded pictures as lightly takes them."""

    def __init__(self, images: np.ndarray, transform: Any) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(Image.fromarray(self.images[index]))


class LightlyVICReg(lightning.LightningModule):
    """VICReg from lightly's parts."""

    def __init__(self, backbone: nn.Module, options: argparse.Namespace, steps_per_epoch: int) -> None:
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__()
        self.backbone = backbone
        self.head = VICRegProjectionHead(backbone.num_features, options.width, options.width, num_layers=3)
        self.criterion = VICRegLoss()
        self.options, self.steps_per_epoch = options, steps_per_epoch

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        first, second = (self.head(self.backbone(view)) for view in batch)
        return self.criterion(first, second)

    def configure_optimizers(self) -> Any:
        options = self.options
        optimization = Optimization(
            options.optimizer,
            options.learning_rate,
            1e-4,
            options.batch_size,
            options.epochs,
            Schedule(options.epochs / 10),
        )
        optimizer = build_optimizer(self, optimization)
        steps = options.epochs * self.steps_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: optimization.schedule(Progress(step, steps, self.steps_per_epoch))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_lightly(options: argparse.Namespace, images: np.ndarray, seed: int) -> tuple[nn.Module, dict[str, float]]:
    from lightly.transforms import VICRegTransform

    torch.manual_seed(seed)
    backbone, _ = create_backbone(options.backbone, image_size=images.shape[1], stem_stride=options.stem_stride)
    loader = torch.utils.data.DataLoader(
        FromMemory(images, VICRegTransform(input_size=images.shape[1])),
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=ARMS[options.only],
        persistent_workers=ARMS[options.only] > 0,
    )
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = LightlyVICReg(backbone, options, len(images) // options.batch_size)
    began = time.monotonic()
    trainer.fit(module, loader)
    return backbone.cpu().eval(), {"seconds": time.monotonic() - began}


def train_fullrank(options: argparse.Namespace, source: Source, seed: int) -> tuple[nn.Module, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        run = fullrank.train(
            source,
            backbone=options.backbone,
            stem_stride=options.stem_stride,
            expander="-".join([str(options.width)] * 3),
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            weight_decay=1e-4,
            seed=seed,
            logger="none",
            report=False,
            output=f"{folder}/run",
        )
        whole = time.monotonic() - began
        summary = run.summary
        figures = {"seconds": summary["seconds"], "whole": whole, "monitor_share": summary["monitor_share"]}
        return run.backbone, figures | {"verdict": summary["verdict"]["Z"]["verdict"]}


def judge(backbone: nn.Module, parts: tuple[Source, Source], pixels: Pixels, size: int) -> float:
    """Top-1 of the weighted kNN classifier on the test part, percent."""
    features, labels = [], []
    for part in parts:
        (values,), kept = embed_pictures(Pictures(part, pixels, size), backbone)
        features.append(values)
        labels.append(torch.from_numpy(part.labels[kept]))
    result = knn(features[0], labels[0], features[1], labels[1], k=(20,), temperature=0.07)
    return round(float(result.scores["top1"]), 2)


class FirstImages(Source):
    """Some pictures of a source, kept decoded."""

    def __init__(self, source: Source, count: int | None) -> None:
        chosen = np.random.default_rng(0).permutation(len(source))[:count]
        self.images = np.stack([source.read(int(index)) for index in chosen])
        labels = None if source.labels is None else source.labels[chosen]
        super().__init__(source.name, range(len(chosen)), labels, source.classes)

    def read(self, index: int) -> np.ndarray:
        return self.images[index]


def one_run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and judge the arm `options.only` with one seed."""
    train = FirstImages(open_pictures(options.data, "train"), options.images)
    test = FirstImages(open_pictures(options.data, "test"), None)
    if options.only == "fullrank":
        backbone, figures = train_fullrank(options, train, options.seed)
    else:
        backbone, figures = train_lightly(options, train.images, options.seed)
    score = judge(backbone, (train, test), measure_pixels(train), train.images.shape[1])
    return {"trained by": options.only, "seed": options.seed, "knn": score, **figures}


def in_own_process(arm: str, seed: int) -> dict[str, Any]:
    """The same in a process of its own; the figures are its last line."""
    environment = os.environ | ({"GOMP_SPINCOUNT": SPINS} if arm == "fullrank" else {})  # as the command does
    command = [sys.executable, *sys.argv, "--only", arm, "--seed", str(seed)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pictures of one size with a train and a test part")
    parser.add_argument("--images", type=int, help="train on so many of them")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--stem_stride", type=int)
    parser.add_argument("--width", type=int, default=512, help="of the expander's three layers")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--learning_rate", type=float, default=0.003)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--only", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one_run(options)))
        return
    rows = []
    for seed in range(options.seeds):
        for arm in options.arms:
            rows.append(in_own_process(arm, seed))
            print(rows[-1], flush=True)
            report(options, rows)


def report(options: argparse.Namespace, rows: list[dict]) -> None:
    """The figures so far, on the screen and in the file."""
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "settings": {key: value for key, value in vars(options).items() if key not in ("out", "data", "only", "seed")},
        "data": Path(options.data).name,
        "hardware": hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", "lightning", "lightly")},
        "rows": rows,
        "summary": {},
    }
    ours = [row["seconds"] for row in rows if row["trained by"] == "fullrank"]
    for arm in options.arms:
        found = [row for row in rows if row["trained by"] == arm]
        ratios = [own / row["seconds"] for own, row in zip(ours, found, strict=False)]
        if ratios:
            scores = [row["knn"] for row in found]
            record["summary"][arm] = {
                "n": len(found),
                "knn": round(statistics.mean(scores), 2),
                "knn_lowest_highest": [min(scores), max(scores)],
                "share of its wall clock that fullrank takes": round(statistics.median(ratios), 3),
            }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
