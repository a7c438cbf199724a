"""Views a second on one core beside lightly's VICReg transform, torchvision v2 and kornia, in one run.

    python benchmarks/views.py [--out FILE]

32 px: pictures in memory. 224 px: JPEG files of 500 x 375 pixels; each is decoded once for its two views on both
sides. torchvision v2 works picture by picture on uint8 tensors, kornia in batches on float tensors; both make VICReg's
two views with the same probabilities. Repeats are interleaved; medians and quartiles of the ratios are printed.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from fullrank.data import open_source
from fullrank.training.feed import collate_crops
from fullrank.training.speed import keep_freed_memory
from fullrank.views import Augment, RandomCrops, vicreg_views

PACKAGES = ("torch", "torchvision", "lightly", "kornia", "pillow")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(count: int, folder: Path) -> Path:
    """JPEG files with structure at every scale, about 60 kB each."""
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
        batches, _ = collate_crops([(each, 0) for each in crops])
        return 2 * len(augment.finish(batches)[0])

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


def torchvision_views(size: int) -> list[v2.Transform]:
    """VICReg's two views from torchvision's parts, for one uint8 picture."""

    def view(blur: float, solarize: float) -> v2.Transform:
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=blur),
                v2.RandomSolarize(128, p=solarize),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    return [view(1.0, 0.0), view(0.1, 0.2)]


def torchvision_in_memory(images: torch.Tensor) -> Callable[[], int]:
    views = torchvision_views(32)
    return lambda: sum(len(torch.stack([view(image) for image in images])) for view in views)


def torchvision_from_files(folder: Path) -> Callable[[], int]:
    source, views = open_source(folder), torchvision_views(224)

    def make() -> int:
        made = [[view(picture) for view in views] for picture in decoded(source)]
        return sum(len(torch.stack(batch)) for batch in zip(*made, strict=True))

    return make


def decoded(source: Any) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(source.read(i)).permute(2, 0, 1) for i in range(len(source)))


def kornia_views(size: int) -> list[torch.nn.Module]:
    """VICReg's two views from kornia's parts, for a batch of floats in [0, 1]."""
    import kornia.augmentation as K

    def view(blur: float, solarize: float) -> torch.nn.Module:
        return torch.nn.Sequential(
            K.RandomResizedCrop((size, size), scale=(0.08, 1.0), resample="bicubic", cropping_mode="resample"),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=blur),
            K.RandomSolarize(0.0, 0.0, p=solarize),
            K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        )

    return [view(1.0, 0.0), view(0.1, 0.2)]


def kornia_in_memory(images: torch.Tensor) -> Callable[[], int]:
    views = kornia_views(32)
    return lambda: sum(len(view(images.float() / 255)) for view in views)


def kornia_from_files(folder: Path) -> Callable[[], int]:
    source, views = open_source(folder), kornia_views(224)

    def make() -> int:
        batch = torch.stack(list(decoded(source))).float() / 255
        return sum(len(view(batch)) for view in views)

    return make


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


def spread(ours: list[float], theirs: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the ratio, formed round by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4, method="inclusive")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `fullrank train` does; for both sides
    small = torch.from_numpy(open_source("shapes:N=512").images()).permute(0, 3, 1, 2).contiguous()  # type: ignore[union-attr]
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(32, Path(folder))
        size = round(statistics.mean(path.stat().st_size for path in files.iterdir()) / 1000)
        cases["32 px from memory"] = speeds(
            {
                "fullrank": ours_in_memory(small),
                "lightly": lightly_in_memory(small),
                "torchvision v2": torchvision_in_memory(small),
                "kornia": kornia_in_memory(small),
            },
            options.rounds,
        )
        cases[f"224 px from JPEG files of {size} kB"] = speeds(
            {
                "fullrank": ours_from_files(files),
                "lightly": lightly_from_files(files),
                "torchvision v2": torchvision_from_files(files),
                "kornia": kornia_from_files(files),
            },
            options.rounds,
        )
    rows = []
    for name, found in cases.items():
        medians = {each: round(statistics.median(values)) for each, values in found.items()}
        ratios = {each: spread(found["fullrank"], values) for each, values in found.items() if each != "fullrank"}
        rows.append({"case": name, "views_per_second": medians, "times as fast as": ratios})
        print(name, medians)
        for each, (low, middle, high) in ratios.items():
            print(f"  {middle:.1f} times {each} ({low:.1f} to {high:.1f})")
    record = {
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "clock": "processor time, one thread",
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {each: importlib.metadata.version(each) for each in PACKAGES},
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
