"""What a run leaves behind: weights, what training bought, the verdict, the report."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from fullrank.data.source import Source
from fullrank.evaluation.factors import factor_scores
from fullrank.evaluation.features import Pictures, choose_device, embed_pictures, evaluating
from fullrank.evaluation.knn import knn
from fullrank.evaluation.splits import Part, labelled_parts
from fullrank.files import write_atomically
from fullrank.methods import Method
from fullrank.report import build_report
from fullrank.runs.diagnose import embedding_arrays, judge, spectra
from fullrank.runs.folder import Run, build_method
from fullrank.training.adapter import Adapter
from fullrank.training.monitor import Monitor
from fullrank.training.prepare import Prepared
from fullrank.training.report_data import pictures_for_report, reference_curves

# Pictures in the final comparison: the classifier's memory, and those that are classified.
FINAL = (5000, 2000)
# The same while training goes on, where it has to be cheap.
ONLINE = (1000, 400)
# Pictures whose embeddings are diagnosed.
DIAGNOSED = 5000
NEIGHBOURS, TEMPERATURE = 20, 0.07
# Larger pictures are compared pixel by pixel at this size (pixels a side).
PIXEL_SIZE = 32


def parts_of(prepared: Prepared, settings: SimpleNamespace, most: tuple[int, int]) -> tuple[Part, Part] | None:
    """Labelled pictures to judge with, or None where the data has no labels."""
    if prepared.source.labels is None or len(prepared.source.classes) < 2:
        return None
    return labelled_parts(prepared.source, settings.data, include=settings.include, most=most, seed=settings.seed)


class FrozenPictures:
    """A few pictures kept decoded, for measuring the same thing again and again."""

    def __init__(self, part: Part, prepared: Prepared) -> None:
        pictures = Pictures(part.source, prepared.pixels, prepared.image_size, part.indices)
        chunks = [(positions, images.half()) for positions, images in pictures.chunks()]
        self.pixels = prepared.pixels
        self.labels = torch.from_numpy(part.source.labels[np.concatenate([kept for kept, _ in chunks])])  # type: ignore[index]
        self._chunks = chunks

    def chunks(self) -> Any:
        """As `Pictures.chunks`."""
        return ((positions, images.float()) for positions, images in self._chunks)


def online_probe(prepared: Prepared, settings: SimpleNamespace) -> Callable[[Adapter], float] | None:
    """A function that gives a network's kNN accuracy (percent) on a few pictures, or None without labels."""
    parts = parts_of(prepared, settings, ONLINE)
    if parts is None:
        return None
    bank, queries = (FrozenPictures(part, prepared) for part in parts)

    def probe(module: Adapter) -> float:
        backbone = module.method.backbone
        dtype = next(backbone.parameters()).dtype
        with evaluating(backbone):
            features = [
                embed_pictures(part, lambda images: backbone(images.to(dtype)), device=module.device)[0][0]  # type: ignore[arg-type]
                for part in (bank, queries)
            ]
        return knn_accuracy(features[0], bank.labels, features[1], queries.labels)

    return probe


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor) -> float:
    """Top-1 of the weighted kNN classifier, percent."""
    result = knn(bank, bank_labels, queries, labels, k=(NEIGHBOURS,), temperature=TEMPERATURE)
    return float(result.top1)


def finish(
    run: Run,
    adapter: Adapter,
    prepared: Prepared,
    monitor: Monitor,
    *,
    seconds: float,
    console: Console,
) -> None:
    """Write weights, comparison, verdict and report of a run that reached its end."""
    settings = adapter.settings
    device = choose_device("cpu" if settings.accelerator == "cpu" else "auto")
    method = adapter.method.float().to(device).eval()
    run.write_backbone(method.backbone)
    console.print("training is done; measuring what it bought")
    untrained = build_method(settings, prepared.pixels.channels, prepared.image_size)[0].to(device).eval()
    embeddings = embed_some(method, prepared, device)
    verdicts = judge(embeddings, method, adapter.hints())
    summary = run.summary | {
        "method": settings.method,
        "backbone": settings.backbone,
        "data": prepared.source.name,
        "images": prepared.usable,
        "epochs": settings.epochs,
        "steps": int(monitor.rows[-1]["step"]),
        "seconds": round(seconds, 1),
        "images_per_second": median_speed(monitor),
        "monitor_share": round(monitor.seconds / max(seconds, 1e-9), 4),
        "verdict": {name: verdict.to_dict() for name, verdict in verdicts.items()},
        "settings": run.summary["settings"],
        "versions": versions(),
        "hardware": hardware(device),
        "date": datetime.date.today().isoformat(),
        "data_check": prepared.check.to_dict(),
        "warnings": monitor.warnings,
        "evaluations": [],
    }
    parts = parts_of(prepared, settings, FINAL)
    if parts is not None:
        summary |= compare(method.backbone, untrained.backbone, prepared, parts, device)
    arrays = embedding_arrays(embeddings) | spectra("untrained", embed_some(untrained, prepared, device))
    if settings.report:
        arrays |= pictures_for_report(method.backbone, prepared, device)
    write_atomically(run.folder / "diagnostics.npz", lambda file: np.savez_compressed(file, **arrays))
    reference_curves(run, settings)
    run.write_summary(summary | {"finished": True})
    if settings.report:
        build_report(run.folder)


def median_speed(monitor: Monitor) -> float:
    """Images a second in the middle of the run's measurements."""
    return float(np.median([row["images_per_second"] for row in monitor.rows]))


def embed_some(method: Method, prepared: Prepared, device: torch.device) -> dict[str, Tensor]:
    """Y and Z of whole pictures spread over the set."""
    chosen = np.linspace(0, len(prepared.source) - 1, min(DIAGNOSED, len(prepared.source))).astype(int)
    pictures = Pictures(prepared.source, prepared.pixels, prepared.image_size, np.unique(chosen))
    (representation, embedding), _ = embed_pictures(pictures, method.embed, device=device)
    return {"Y": representation, "Z": embedding}


def compare(
    trained: nn.Module,
    untrained: nn.Module,
    prepared: Prepared,
    parts: tuple[Part, Part],
    device: torch.device,
) -> dict[str, Any]:
    """kNN accuracy and factor scores of the trained backbone beside an untrained one and raw pixels."""
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    kept: list[np.ndarray] = []
    for name, embed in (("trained", trained), ("untrained", untrained), ("raw_pixels", raw_pixels)):
        found = [embed_pictures(pictures_of(part, prepared), embed, device=device) for part in parts]
        rows[name] = (found[0][0][0], found[1][0][0])
        kept = [positions for _, positions in found]
    labels = [torch.from_numpy(part.source.labels[positions]) for part, positions in zip(parts, kept, strict=True)]  # type: ignore[index]
    result: dict[str, Any] = {
        "knn": {
            **{
                name: round(knn_accuracy(bank, labels[0], queries, labels[1]), 2)
                for name, (bank, queries) in rows.items()
            },
            "chance": round(100 * float(labels[1].bincount().max()) / len(labels[1]), 2),
            "k": NEIGHBOURS,
            "bank": len(labels[0]),
            "queries": len(labels[1]),
        }
    }
    if prepared.source.factors:
        result["factors"] = surviving_factors(rows, prepared.source, parts, kept)
    return result


def pictures_of(part: Part, prepared: Prepared) -> Pictures:
    """The pictures of a part as the network takes them."""
    return Pictures(part.source, prepared.pixels, prepared.image_size, part.indices)


def raw_pixels(images: Tensor) -> Tensor:
    """The pictures themselves as vectors, centred by the normalisation that the network sees."""
    if images.shape[-1] > PIXEL_SIZE:
        images = nn.functional.interpolate(images, (PIXEL_SIZE, PIXEL_SIZE), mode="area")
    return images.flatten(1)


def surviving_factors(
    rows: dict[str, tuple[Tensor, Tensor]], source: Source, parts: tuple[Part, Part], kept: list[np.ndarray]
) -> list[dict[str, Any]]:
    """How well each known factor can be read linearly from the representation, before and after training."""
    known = [part.factors(positions) for part, positions in zip(parts, kept, strict=True)]
    scores = {
        name: factor_scores(rows[name][0], known[0], rows[name][1], known[1], source.factor_kinds)
        for name in ("trained", "untrained")
    }
    return [
        score.to_dict() | {"untrained": before.score}
        for score, before in zip(scores["trained"], scores["untrained"], strict=True)
    ]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("fullrank", "torch", "torchvision", "timm", "lightning", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine that the numbers were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
