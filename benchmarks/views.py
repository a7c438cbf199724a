"""Views a second on one core beside lightly's VICReg transform, in one run.

    python benchmarks/views.py [--out FILE]

32 px: pictures in memory. 224 px: JPEG files of 500 x 375 pixels; each is decoded once for its two views on both
sides. Repeats are interleaved; medians and quartiles of the ratio are printed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fullrank.data import open_source
from fullrank.views import Augment, RandomCrops, vicreg_views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(count: int, folder: Path) -> Path:
    """JPEG files with structure at every scale, about 80 kB each."""
    chance = np.random.default_rng(0)
    for number in range(count):
        layers = [
            Image.fromarray(chance.integers(0, 255, (s, s * 4 // 3, 3), dtype=np.uint8)) for s in (4, 16, 60, 200)
        ]
        large = [np.asarray(layer.resize((500, 375), Image.Resampling.BICUBIC), np.float32) for layer in layers]
        mixed = 0.4 * large[0] + 0.25 * large[1] + 0.2 * large[2] + 0.15 * large[3]
        Image.fromarray(mixed.astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=90)
    return folder


def ours_in_memory(images: torch.Tensor) -> Callable[[], int]:
    augment = Augment(vicreg_views(32), MEAN, STD)
    return lambda: 2 * len(augment(images)[0])


def ours_from_files(folder: Path) -> Callable[[], int]:
    source, recipe = open_source(folder), vicreg_views(224)
    crop, augment = RandomCrops(recipe), Augment(recipe, MEAN, STD)

    def make() -> int:
        crops = [crop(torch.from_numpy(source.read(i)).permute(2, 0, 1)) for i in range(len(source))]
        return 2 * len(augment.finish([torch.stack(view) for view in zip(*crops, strict=True)])[0])

    return make


def lightly_in_memory(images: torch.Tensor) -> Callable[[], int]:
    from lightly.transforms import VICRegTransform

    transform = VICRegTransform(input_size=32)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return lambda: sum(len(transform(picture)) for picture in pictures)


def lightly_from_files(folder: Path) -> Callable[[], int]:
    from lightly.transforms import VICRegTransform

    transform, paths = VICRegTransform(input_size=224), sorted(folder.iterdir())
    return lambda: sum(len(transform(Image.open(path).convert("RGB"))) for path in paths)


def speeds(makers: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Views per second of processor time, one number a round, in turn."""
    found: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(rounds + 1):
        for name, make in makers.items():
            started = time.process_time()
            views = make()
            if turn:  # the first round warms up
                found[name].append(views / (time.process_time() - started))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = torch.from_numpy(open_source("shapes:N=512").images()).permute(0, 3, 1, 2).contiguous()  # type: ignore[union-attr]
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(32, Path(folder))
        size = round(statistics.mean(path.stat().st_size for path in files.iterdir()) / 1000)
        cases["32 px from memory"] = speeds(
            {"fullrank": ours_in_memory(small), "lightly": lightly_in_memory(small)}, options.rounds
        )
        cases[f"224 px from JPEG files of {size} kB"] = speeds(
            {"fullrank": ours_from_files(files), "lightly": lightly_from_files(files)}, options.rounds
        )
    rows = []
    for name, found in cases.items():
        ratios = [ours / theirs for ours, theirs in zip(found["fullrank"], found["lightly"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        medians = {each: round(statistics.median(values)) for each, values in found.items()}
        rows.append({"case": name, "views_per_second": medians, "ratio": middle, "quartiles": [low, high]})
        print(f"{name}: {medians} ratio {middle:.1f} ({low:.1f} to {high:.1f})")
    record = {
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "clock": "processor time, one thread",
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
        "versions": {each: importlib.metadata.version(each) for each in ("torch", "torchvision", "lightly", "pillow")},
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
