"""What a report shows, read from a run folder. Every part is optional; a missing one leaves no hole in the page."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fullrank.errors import InputError

Arrays = Mapping[str, np.ndarray]

TITLES = {"Y": "Representation Y", "Z": "Embedding Z", "vectors": "The vectors"}
# The page stays under 5 MB whatever it is given.
MOST_MAP_POINTS, MOST_SETS, MOST_IMAGES_A_SET, MOST_NEIGHBOURS, MOST_DIMENSIONS = 1000, 6, 10, 8, 128
COORDINATES = ("step", "epoch", "learning_rate", "images_per_second", "knn")


@dataclass(frozen=True)
class Branch:
    """One place where vectors are taken: the representation Y, the embedding Z, or vectors from anywhere."""

    name: str
    title: str
    verdict: str = ""
    reason: str = ""
    remedy: str = ""
    remarks: Sequence[str] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    spectrum: np.ndarray | None = None  # (min(n, d),) centred singular values, largest first
    untrained_spectrum: np.ndarray | None = None
    deviations: np.ndarray | None = None  # (d,) standard deviation of each dimension
    correlation: np.ndarray | None = None  # (k, k), k <= 128

    @property
    def colour(self) -> str:
        """Its style: Y and Z have their own, vectors from anywhere share one."""
        return self.name if self.name in ("Y", "Z") else "vectors"

    @property
    def possible_rank(self) -> int:
        """The largest rank that the vectors can have, 0 when unknown."""
        stated = self.measures.get("possible_rank", self.measures.get("d", float("nan")))
        if np.isfinite(stated):
            return int(stated)
        return 0 if self.spectrum is None else len(self.spectrum)

    @property
    def rank(self) -> float | None:
        """The effective rank, but not after a complete collapse: centring makes a full one of what noise is left."""
        rank = self.measures.get("effective_rank", float("nan"))
        return rank if np.isfinite(rank) and self.verdict != "complete collapse" else None


@dataclass(frozen=True)
class Factor:
    """How well one known cause of the pictures is read from Y: accuracy or R2 of a linear fit, both as shares."""

    name: str
    kind: str
    score: float
    untrained: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Neighbours:
    """The K nearest pictures to each of Q queries, best first."""

    queries: np.ndarray  # (Q, H, W, 3) uint8
    images: np.ndarray  # (Q, K, H, W, 3) uint8
    similarity: np.ndarray | None = None  # (Q, K) cosine
    query_labels: np.ndarray | None = None  # (Q,)
    labels: np.ndarray | None = None  # (Q, K)


@dataclass(frozen=True)
class Map:
    """M samples laid out in the plane, near where the network finds them alike."""

    points: np.ndarray  # (M, 2)
    labels: np.ndarray | None = None  # (M,)
    thumbnails: np.ndarray | None = None  # (M, h, w, 3) uint8
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Reference:
    """Curves of a healthy run of the same recipe: per metric (K, 2) rows of (share of training done, value)."""

    source: str
    steps: int
    curves: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show. `from_folder` reads a run, `from_diagnosis` the judgement on an array."""

    name: str
    branches: Sequence[Branch] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, np.ndarray] = field(default_factory=dict)  # column -> (rows,), NaN where not measured
    reference: Reference | None = None
    factors: Sequence[Factor] = ()
    views: np.ndarray | None = None  # (R, V + 1, H, W, 3) uint8, the original first
    neighbours: Neighbours | None = None
    map: Map | None = None
    classes: Sequence[str] = ()
    configuration: str = ""
    # With which timm builds the backbone again; None where what timm builds is not the network that was trained.
    creation: Mapping[str, Any] | None = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> ReportData:
        """Read the files of a run. Raises `InputError` for a folder that holds none, or for a damaged file."""
        summary = read_json(folder / "summary.json")
        metrics = read_metrics(folder / "metrics.csv")
        arrays = read_arrays(folder / "diagnostics.npz")
        if not (summary or metrics or arrays):
            raise InputError(
                f"'{folder}' holds no summary.json, metrics.csv or diagnostics.npz: give the folder of a run"
            )
        configuration = folder / "config.yaml"
        return cls(
            name=str(summary.get("name") or folder.resolve().name),
            branches=branches(summary.get("verdict") or {}, arrays),
            summary=summary,
            metrics=metrics,
            reference=reference(read_json(folder / "reference.json")),
            factors=[factor(entry) for entry in summary.get("factors") or []],
            configuration=configuration.read_text(encoding="utf-8", errors="replace") if configuration.exists() else "",
            creation=creation_arguments(folder / "backbone.safetensors"),
            **pictures(arrays),
        )

    @classmethod
    def from_diagnosis(cls, result: Mapping[str, Any], arrays: Arrays) -> ReportData:
        """One verdict (`verdict`, `reason`, `remedy`, `measures`), or a table of them under `verdict`."""
        verdict = result.get("verdict") or {}
        verdicts = verdict if isinstance(verdict, Mapping) else {"vectors": result}
        single = ("spectrum", "std", "correlation")  # of the vectors, when no branch is named
        renamed = {f"vectors_{key}" if key in single else key: value for key, value in arrays.items()}
        return cls(
            name=str(result.get("name") or "vectors"),
            branches=branches(verdicts, renamed),
            summary={key: value for key, value in result.items() if key in ("data", "images", "versions", "hardware")},
            **pictures(renamed),
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or {} when there is no such file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON ({error}): delete it or run the training again") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, expected a JSON object: delete it")
    return content


def creation_arguments(weights: Path) -> dict[str, Any] | None:
    """With which arguments timm builds the network of a weights file: {} without the file, None where it is another.

    timm's is another where the trained one has a stem for small images, or is made of two.
    """
    if not weights.exists():
        return {}
    try:
        with safe_open(weights, "numpy") as file:
            record = (file.metadata() or {}).get("fullrank", "{}")
    except SafetensorError as error:
        raise InputError(f"'{weights}' is no safetensors file ({error}): run the training again") from error
    said = json.loads(record)
    return said.get("creation", {}) if said.get("as_trained", True) else None


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Columns of a metrics table; empty and unfinished cells are NaN, a step written twice counts once, as last."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if np.isfinite(number(row.get("step")))]
    latest = {number(row["step"]): row for row in rows}
    ordered = [latest[step] for step in sorted(latest)]
    columns = [name for name in (rows[0] if rows else {}) if name]
    return {name: np.array([number(row[name]) for row in ordered]) for name in columns}


def number(cell: Any) -> float:
    """A cell as a float, NaN when it is empty or no number."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file (never unpickled), or {} when there is no such file."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is not an archive of plain arrays ({error}): run the diagnosis again") from error


def branches(verdicts: Mapping[str, Any], arrays: Arrays) -> list[Branch]:
    """Y, then Z, then anything else that has a verdict or an array."""
    names = [*TITLES, *(name for name in verdicts if name not in TITLES)]
    found = [branch(name, verdicts.get(name) or {}, arrays) for name in names]
    return [one for one in found if one.verdict or one.spectrum is not None or one.deviations is not None]


def branch(name: str, verdict: Mapping[str, Any], arrays: Arrays) -> Branch:
    """What is known about one place where vectors are taken."""
    measures = verdict.get("measures") or {}
    correlation = optional(arrays, f"{name}_correlation", 2)
    return Branch(
        name,
        TITLES.get(name, name),
        verdict=str(verdict.get("verdict") or ""),
        reason=str(verdict.get("reason") or ""),
        remedy=str(verdict.get("remedy") or ""),
        remarks=[str(remark) for remark in verdict.get("remarks") or []],
        measures={str(key): number(value) for key, value in measures.items() if not isinstance(value, str)},
        spectrum=spectrum(arrays, f"{name}_spectrum", measures),
        untrained_spectrum=spectrum(arrays, f"untrained_{name}_spectrum", measures),
        deviations=optional(arrays, f"{name}_std", 1),
        correlation=None if correlation is None else correlation[:MOST_DIMENSIONS, :MOST_DIMENSIONS].astype(np.float64),
    )


def spectrum(arrays: Arrays, name: str, measures: Mapping[str, Any]) -> np.ndarray | None:
    """Singular values without those that cannot be: the mean that was taken out leaves one of nothing but rounding."""
    values, possible = optional(arrays, name, 1), number(measures.get("possible_rank"))
    return values if values is None or not np.isfinite(possible) else values[: int(possible)]


def optional(arrays: Arrays, name: str, dimensions: int) -> np.ndarray | None:
    """The array of that name, None when it is missing or empty. Raises `InputError` for another shape."""
    array = arrays.get(name)
    if array is None or array.size == 0:
        return None
    if array.ndim != dimensions:
        raise InputError(f"diagnostic '{name}' has shape {array.shape}, expected {dimensions} axes: run it again")
    return array


def pictures(arrays: Arrays) -> dict[str, Any]:
    """The parts that are made of pictures: views, neighbours and the map, cut to what a page can carry."""
    views = optional(arrays, "views", 5)
    classes = optional(arrays, "class_names", 1)
    return {
        "views": None if views is None else views[:MOST_SETS, :MOST_IMAGES_A_SET],
        "neighbours": neighbours(arrays),
        "map": layout(arrays),
        "classes": [] if classes is None else [str(name) for name in classes],
    }


def neighbours(arrays: Arrays) -> Neighbours | None:
    """The nearest pictures of the queries, when both were stored."""
    queries, images = optional(arrays, "neighbours_query", 4), optional(arrays, "neighbours", 5)
    if queries is None or images is None:
        return None
    tables = [optional(arrays, f"neighbours_{name}", 2) for name in ("similarity", "label")]
    similarity, labels = [None if table is None else table[:MOST_SETS, :MOST_NEIGHBOURS] for table in tables]
    query_labels = optional(arrays, "query_label", 1)
    return Neighbours(queries[:MOST_SETS], images[:MOST_SETS, :MOST_NEIGHBOURS], similarity, query_labels, labels)


def layout(arrays: Arrays) -> Map | None:
    """The 2-D map: samples with a finite place, evenly thinned to 1000."""
    points = optional(arrays, "map_xy", 2)
    if points is None:
        return None
    kept = np.flatnonzero(np.isfinite(points).all(axis=1))
    kept = kept[:: -(-len(kept) // MOST_MAP_POINTS)] if len(kept) else kept
    if not len(kept):
        return None
    parts = [optional(arrays, name, axes) for name, axes in (("map_label", 1), ("map_thumbs", 4), ("map_name", 1))]
    if any(part is not None and len(part) != len(points) for part in parts):
        sizes = [len(part) for part in parts if part is not None]
        raise InputError(f"diagnostic 'map_xy' has {len(points)} samples, its labels or pictures {sizes}: run it again")
    labels, thumbnails, names = [None if part is None else part[kept] for part in parts]
    return Map(points[kept], labels, thumbnails, () if names is None else [str(name) for name in names])


def factor(entry: Mapping[str, Any]) -> Factor:
    """One row of the factor table; scores that are missing stay missing."""
    rest = {key: number(entry[key]) for key in ("untrained", "chance") if entry.get(key) is not None}
    return Factor(str(entry.get("name")), str(entry.get("kind") or ""), number(entry.get("score")), **rest)


def reference(content: Mapping[str, Any]) -> Reference | None:
    """The curves of a healthy run, when the run folder carries them."""
    curves = {
        str(name): np.array(points, dtype=np.float64).reshape(-1, 2)
        for name, points in (content.get("curves") or {}).items()
        if points
    }
    return Reference(str(content.get("source") or ""), int(content.get("steps") or 0), curves) if curves else None


def loss_terms(metrics: Mapping[str, np.ndarray]) -> list[str]:
    """The columns that are terms of the loss, by their names in the paper."""
    known = {*COORDINATES, "loss"}
    return [name for name in metrics if name not in known and not name.startswith(("Y_", "Z_"))]
