"""VICReg on labelled pictures with fullrank and with lightly: kNN accuracy and wall clock, side by side.

    python benchmarks/training.py --data cifar10.tar.xz --backbone test_resnet --stem_stride 2 --epochs 5

Both train the same backbone from the same first weights with the same expander, coefficients, batch, optimiser and
schedule for the same epochs, one seed after the other, in turn. lightly is used as its documentation shows (a
Lightning module, a DataLoader with workers, its transform, head and loss); it gets its pictures from memory, decoded
before the clock starts. fullrank's clock `seconds` holds the training, its live measures and kNN probes; `whole` also
opening, checking and decoding the data, and the comparison and verdict at the end. Features of both are judged by the
same weighted kNN (k 20, temperature 0.07) on the test part.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
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
from fullrank.data import open_pictures
from fullrank.data.source import Source
from fullrank.data.statistics import Pixels, measure_pixels
from fullrank.evaluation.features import Pictures, embed_pictures
from fullrank.evaluation.knn import knn
from fullrank.networks import create_backbone
from fullrank.training.finish import hardware
from fullrank.training.optimizer import build_optimizer
from fullrank.training.schedules import warmup_cosine, warmup_for

BACKENDS = ("fullrank", "fullrank float32", "lightly")


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
        from lightly.models.modules import VICRegProjectionHead

        super().__init__()
        self.backbone = backbone
        self.head = VICRegProjectionHead(backbone.num_features, options.width, options.width, num_layers=3)
        self.criterion = VICRegLoss()
        self.options, self.steps_per_epoch = options, steps_per_epoch

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        first, second = (self.head(self.backbone(view)) for view in batch)
        return self.criterion(first, second)

    def configure_optimizers(self) -> Any:
        rate = self.options.learning_rate * self.options.batch_size / 256
        optimizer = build_optimizer(
            self.options.optimizer, self, learning_rate=rate, bias_learning_rate=None, weight_decay=1e-4
        )
        epochs = self.options.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(
                step, steps_per_epoch=self.steps_per_epoch, epochs=epochs, warmup_epochs=warmup_for(epochs)
            ),
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
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
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


def train_fullrank(
    options: argparse.Namespace, source: Any, seed: int, precision: str
) -> tuple[nn.Module, dict[str, float]]:
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
            precision=precision,
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
    return round(result.top1, 2)


class FirstImages(Source):
    """Some pictures of a source, kept decoded."""

    def __init__(self, source: Source, count: int | None) -> None:
        chosen = np.random.default_rng(0).permutation(len(source))[:count]
        self.images = np.stack([source.read(int(index)) for index in chosen])
        labels = None if source.labels is None else source.labels[chosen]
        super().__init__(source.name, range(len(chosen)), labels, source.classes)

    def read(self, index: int) -> np.ndarray:
        return self.images[index]


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
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="decoding processes of lightly")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    train = FirstImages(open_pictures(options.data, "train"), options.images)
    test = FirstImages(open_pictures(options.data, "test"), None)
    pixels, size = measure_pixels(train), train.images.shape[1]
    rows = []
    for seed in range(options.seeds):
        for name in BACKENDS:
            if name == "lightly":
                backbone, figures = train_lightly(options, train.images, seed)
            else:
                precision = "32-true" if name.endswith("float32") else "auto"
                backbone, figures = train_fullrank(options, train, seed, precision)
            rows.append(
                {"trained by": name, "seed": seed, "knn": judge(backbone, (train, test), pixels, size), **figures}
            )
            print(rows[-1], flush=True)
            report(options, rows)


def report(options: argparse.Namespace, rows: list[dict]) -> None:
    """The figures so far, on the screen and in the file."""
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "settings": {key: value for key, value in vars(options).items() if key not in ("out", "data")},
        "data": Path(options.data).name,
        "hardware": hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", "lightning", "lightly")},
        "rows": rows,
        "summary": {},
    }
    theirs = [row["seconds"] for row in rows if row["trained by"] == "lightly"]
    for name in BACKENDS:
        own = [row for row in rows if row["trained by"] == name]
        if own and theirs:
            scores = [row["knn"] for row in own]
            ratios = [row["seconds"] / other for row, other in zip(own, theirs, strict=False)]
            record["summary"][name] = {
                "n": len(own),
                "knn": round(statistics.mean(scores), 2),
                "knn_lowest_highest": [min(scores), max(scores)],
                "wall clock of lightly": round(statistics.median(ratios), 3),
            }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
