"""What training bought: the trained network beside an untrained one and beside raw pixels, on the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.evaluation.factors import factor_scores
from fullrank.evaluation.features import Pictures, embed_pictures, evaluating
from fullrank.evaluation.knn import knn
from fullrank.evaluation.splits import Part, labelled_parts
from fullrank.methods import Method
from fullrank.training.adapter import Adapter
from fullrank.training.prepare import Prepared

# Pictures at the end of a run, at the most: those that are diagnosed and are the classifier's memory, and those that
# are classified. A short run is measured on fewer, so that measuring costs less than it did.
FINAL, FEWEST = (5000, 2000), (500, 200)
# The same while training goes on, where it has to be cheap.
ONLINE = (1000, 400)
NEIGHBOURS, TEMPERATURE = 20, 0.07
# Larger pictures are compared pixel by pixel at this size (pixels a side).
PIXEL_SIZE = 32
# What is known of every picture that is measured.
MEASURED = ("Y", "Z", "untrained_Y", "untrained_Z", "pixels")


def measured_parts(
    prepared: Prepared, settings: SimpleNamespace, most: tuple[int, int], seen: int | None = None
) -> list[Part]:
    """The pictures that are measured and, where there are labels, those that are classified.

    Of each at most `most`, and not many more than were `seen` in training.
    """
    source = prepared.source
    if seen is not None:
        most = min(most[0], max(FEWEST[0], seen)), min(most[1], max(FEWEST[1], seen))
    if source.labels is not None and len(source.classes) > 1:
        parts = labelled_parts(
            source, {"data": settings.data, "include": settings.include}, most=most, seed=settings.seed
        )
        if len(parts[0].indices) > 1:
            return list(parts)
    return [Part(source, np.unique(np.linspace(0, len(source) - 1, min(most[0], len(source))).astype(int)))]


class Measured:
    """A part of the pictures through both networks, each decoded once: `self["Y"]`, ..., one row a readable picture."""

    def __init__(
        self, part: Part, prepared: Prepared, trained: Method, untrained: Method, device: torch.device
    ) -> None:
        def embed(images: Tensor) -> tuple[Tensor, ...]:
            return *trained.embed(images), *untrained.embed(images), raw_pixels(images)

        pictures = Pictures(part.source, prepared.pixels, prepared.image_size, part.indices)
        values, self.kept = embed_pictures(pictures, embed, device=device)
        self._values = dict(zip(MEASURED, values, strict=True))
        self._part = part

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    @property
    def labels(self) -> Tensor:
        """(n,) of the pictures that could be read."""
        assert self._part.source.labels is not None
        return torch.from_numpy(self._part.source.labels[self.kept])

    @property
    def factors(self) -> dict[str, np.ndarray]:
        """The known generating factors, (n,) each."""
        return self._part.factors(self.kept)


def raw_pixels(images: Tensor) -> Tensor:
    """The pictures themselves as vectors, centred by the normalisation that the network sees."""
    if images.shape[-1] > PIXEL_SIZE:
        images = nn.functional.interpolate(images, (PIXEL_SIZE, PIXEL_SIZE), mode="area")
    return images.flatten(1)


def gain(bank: Measured, queries: Measured, factor_kinds: dict[str, Any]) -> dict[str, Any]:
    """kNN accuracy of both networks and of raw pixels, and what of the known factors can be read from Y."""
    rows = {"trained": "Y", "untrained": "untrained_Y", "raw_pixels": "pixels"}
    accuracy = {
        row: round(knn_accuracy(bank[name], bank.labels, queries[name], queries.labels), 2)
        for row, name in rows.items()
    }
    chance = round(100 * float(queries.labels.bincount().max()) / len(queries.labels), 2)
    sizes = {"k": NEIGHBOURS, "bank": len(bank.labels), "queries": len(queries.labels)}
    result: dict[str, Any] = {"knn": {**accuracy, "chance": chance, **sizes}}
    if factor_kinds:
        trained, untrained = (
            factor_scores(bank[name], bank.factors, queries[name], queries.factors, factor_kinds)
            for name in ("Y", "untrained_Y")
        )
        result["factors"] = [
            score.to_dict() | {"untrained": before.score} for score, before in zip(trained, untrained, strict=True)
        ]
    return result


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor) -> float:
    """Top-1 of the weighted kNN classifier, percent."""
    result = knn(bank, bank_labels, queries, labels, k=(NEIGHBOURS,), temperature=TEMPERATURE)
    return float(result.scores["top1"])


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
    parts = measured_parts(prepared, settings, ONLINE)
    if len(parts) < 2:
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
