"""Run folders as training leaves them, made of planted numbers: what each shows is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

CLASSES = ["stripes", "dots", "rings", "checks", "waves", "blocks"]
VERDICTS = {
    "healthy": (
        ("healthy", "84 of 128 directions carry information and no dimension is empty.", "Nothing needs to change."),
        ("healthy", "161 of 256 directions carry information and no dimension is empty.", "Nothing needs to change."),
    ),
    "dimensional": (
        ("healthy", "52 of 128 directions carry information.", "Watch it: the embedding has already collapsed."),
        (
            "dimensional collapse",
            "Only 9 of 256 directions carry information: the other dimensions repeat them (mean correlation 0.41).",
            "Raise the covariance coefficient (it is 0) to 1, or lower the learning rate.",
        ),
    ),
    "complete": (
        (
            "complete collapse",
            "The spread around the mean is 0.0002 of the length of the mean: every picture gets the same vector.",
            "Set the variance coefficient (it is 0) to 25.",
        ),
        (
            "complete collapse",
            "The spread around the mean is 0.0001 of the length of the mean: every picture gets the same vector.",
            "Set the variance coefficient (it is 0) to 25.",
        ),
    ),
}
RANKS = {"healthy": (84.2, 161.4), "dimensional": (52.3, 9.1), "complete": (96.0, 180.0)}
SPREAD = {"healthy": (0.62, 1.01), "dimensional": (0.55, 0.97), "complete": (2e-4, 1e-4)}


def make_run(folder: Path, kind: str = "healthy", *, pictures: bool = True, steps: int = 6240, rows: int = 312) -> Path:
    """A complete run folder whose verdict is `kind`: healthy, dimensional or complete."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    (folder / "summary.json").write_text(json.dumps(summary(kind, steps)))
    (folder / "config.yaml").write_text(CONFIGURATION)
    write_metrics(folder / "metrics.csv", kind, np.linspace(steps / rows, steps, rows).astype(int), random)
    reference = {"source": "shapes, test_resnet, 40 epochs", "curves": reference_curves()}
    (folder / "reference.json").write_text(json.dumps(reference))
    arrays = vectors(kind, random)
    if pictures:
        arrays |= picture_arrays(kind, random)
    np.savez(folder / "diagnostics.npz", **arrays)
    return folder


def make_minimal(folder: Path) -> Path:
    """What an unlabelled run leaves: no kNN, no factors, no labels, no reference."""
    make_run(folder)
    content = json.loads((folder / "summary.json").read_text())
    for part in ("knn", "factors", "evaluations", "warnings", "data_check"):
        del content[part]
    (folder / "summary.json").write_text(json.dumps(content))
    (folder / "reference.json").unlink()
    (folder / "config.yaml").unlink()
    with np.load(folder / "diagnostics.npz") as archive:
        kept = {name: archive[name] for name in archive.files if "label" not in name and name != "class_names"}
    np.savez(folder / "diagnostics.npz", **kept)
    return folder


def make_single_step(folder: Path) -> Path:
    """A run that was stopped after its first step: one row, no diagnostics."""
    make_run(folder, steps=1, rows=1)
    (folder / "diagnostics.npz").unlink()
    content = json.loads((folder / "summary.json").read_text())
    content = {key: content[key] for key in ("name", "method", "backbone", "data", "images", "settings")}
    (folder / "summary.json").write_text(json.dumps({**content, "finished": False, "steps": 1, "epochs": 0}))
    return folder


def make_multichannel(folder: Path) -> Path:
    """Thirteen 16-bit bands, shown in three of them."""
    make_run(folder, "dimensional")
    content = json.loads((folder / "summary.json").read_text())
    content["data_check"] |= {"pixels": {"channels": 13, "depth": "uint16"}, "sizes": [[64, 64]] * 3}
    content["input"]["channels"] = 13
    (folder / "summary.json").write_text(json.dumps(content))
    record = {"architecture": "test_resnet", "creation": {"num_classes": 0, "in_chans": 13}}
    header = json.dumps({"__metadata__": {"fullrank": json.dumps(record)}}).encode()
    (folder / "backbone.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def summary(kind: str, steps: int) -> dict:
    """The summary of a run, with every part."""
    verdicts = {name: verdict(kind, index) for index, name in enumerate("YZ")}
    trained = {"healthy": 72.7, "dimensional": 51.4, "complete": 17.1}[kind]
    return {
        "name": f"shapes-{kind}",
        "method": "vicreg",
        "backbone": "test_resnet",
        "data": "shapes",
        "images": 20000,
        "epochs": 40,
        "steps": steps,
        "seconds": 271.4,
        "images_per_second": 2948.0,
        "finished": True,
        "verdict": verdicts,
        "knn": {"trained": trained, "untrained": 40.2, "raw_pixels": 31.8, "chance": 16.67, "k": 20},
        "factors": factors(kind),
        "settings": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "batch_size": 128, "precision": "32"},
        "versions": {"fullrank": "0.1.0", "torch": "2.15.0", "timm": "1.0.31", "python": "3.11.9"},
        "hardware": {"device": "cpu", "cores": 2, "threads": 2, "system": "Linux"},
        "date": "2026-11-22",
        "input": {"channels": 3, "image_size": 32},
        "data_check": {
            "name": "shapes",
            "count": 20000,
            "sizes": [[32, 32], [32, 32], [32, 32]],
            "modes": {"RGB": 20000},
            "duplicates": [],
            "unreadable": [["broken.png", "truncated"]],
            "class_counts": dict.fromkeys(CLASSES, 3333) | {f"rare {index}": 1 for index in range(4)},
            "pixels": {"channels": 3, "depth": "uint8"},
            "seconds": None,
        },
        "warnings": []
        if kind == "healthy"
        else [{"step": 1180, "message": "The effective rank of Z fell under 10 of 256: a collapse begins."}],
        "evaluations": [
            evaluation("knn", trained, 97.0, []),
            evaluation("linear", trained + 6, 98.1, ["The test samples come from the training set."]),
        ],
    }


def evaluation(protocol: str, top1: float, top5: float, notes: list[str]) -> dict:
    """What `evaluate` keeps of one protocol."""
    counts = {"n_train": 5000, "n_test": 2000, "classes": 6}
    rest = {"settings": {"k": 20}, "notes": notes, "by_class": {"disk": 91.5, "ring": 12.25}}
    details = {"k=10": {"top1": top1}, "k=20": {"top1": top1 - 1}}
    scores = {"top1": top1, "top5": top5}
    return {"protocol": protocol, "scores": scores, "details": details, **counts, **rest, "data": "shapes[test]"}


def verdict(kind: str, index: int) -> dict:
    """One verdict with its measures."""
    name, reason, remedy = VERDICTS[kind][index]
    rank, spread = RANKS[kind][index], SPREAD[kind][index]
    measures = {
        "effective_rank": rank,
        "possible_rank": 128 * (1 + index),
        "rankme": 0.8 * rank,
        "participation_ratio": 0.4 * rank,
        "stable_rank": 0.1 * rank,
        "alpha": 0.93,
        "std": spread,
        "absolute_correlation": 0.07 + 0.34 * (name != "healthy"),
        "uniformity": float("nan"),
        "an_unknown_measure": 1234.5678,
        "dead_dimensions": 0,
        "n": 4096,
        "d": 128 * (1 + index),
    }
    remarks = [] if name == "healthy" else ["A single direction holds 61 % of the variance."]
    return {"verdict": name, "reason": reason, "remedy": remedy, "measures": measures, "remarks": remarks}


def factors(kind: str) -> list[dict]:
    """What a linear model reads from Y."""
    share = {"healthy": 1.0, "dimensional": 0.7, "complete": 0.1}[kind]
    rows = [
        ("shape", "accuracy", 0.91, 0.48, 0.167),
        ("background texture", "accuracy", 0.83, 0.41, 0.125),
        ("hue", "r2", 0.35, 0.77, 0.0),
        ("size", "r2", 0.72, 0.44, 0.0),
        ("horizontal position", "r2", 0.12, 0.38, 0.0),
        ("rotation", "r2", -0.03, 0.08, 0.0),
    ]
    return [
        {"name": name, "kind": kind_of, "score": share * score, "untrained": untrained, "chance": chance}
        for name, kind_of, score, untrained, chance in rows
    ]


def reference_curves() -> dict[str, list[list[float]]]:
    """A healthy run: (share of training done, value)."""
    share = np.linspace(0, 1, 60)
    return {name: np.stack([share, curve], axis=1).tolist() for name, curve in planted("healthy", share).items()}


def planted(kind: str, share: np.ndarray) -> dict[str, np.ndarray]:
    """Smooth curves over the share of training done."""
    fall = np.exp(-7 * share)
    bad = kind != "healthy"
    ranks, spread = RANKS[kind], SPREAD[kind]
    invariance = (0.02 if bad else 0.18) + 0.5 * fall
    variance = (0.98 if kind == "complete" else 0.12) + 0.6 * fall
    covariance = (18.0 if kind == "dimensional" else 1.2) + 4 * fall
    return {
        "loss": 25 * invariance + 25 * variance + covariance,
        "invariance": invariance,
        "variance": variance,
        "covariance": covariance,
        "learning_rate": 0.003 * np.minimum(10 * share, 0.5 + 0.5 * np.cos(np.pi * share)),
        "Y_effective_rank": ranks[0] * (1 - 0.7 * fall) if not bad else ranks[0] / 6 + 60 * fall,
        "Z_effective_rank": ranks[1] * (1 - 0.8 * fall) if not bad else ranks[1] / 18 + 90 * fall,
        "Y_std": spread[0] * (1 - 0.6 * fall) + 0.3 * fall,
        "Z_std": spread[1] * (1 - 0.6 * fall) + 0.4 * fall,
        "Y_correlation": 0.09 + 0.2 * fall + 0.1 * bad,
        "Z_correlation": 0.06 + 0.3 * fall + 0.35 * bad,
        "knn": 40 + 33 * (1 - fall) * (0.3 if bad else 1),
    }


def write_metrics(path: Path, kind: str, steps: np.ndarray, random: np.random.Generator) -> None:
    """Noisy curves; ranks every fourth row and kNN every thirtieth, empty between."""
    curves = planted(kind, steps / steps[-1])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", *curves, "images_per_second"])
        for row, step in enumerate(steps):
            cells = []
            for name, curve in curves.items():
                every = 30 if name == "knn" else 4 if name.startswith(("Y_", "Z_")) else 1
                noise = 1 + (0 if name == "learning_rate" else 0.04) * random.standard_normal()
                cells.append(f"{curve[row] * noise:.6g}" if row % every == 0 else "")
            writer.writerow([step, step // 156, *cells, 2900 + row])


def vectors(kind: str, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Spectra, deviations and correlations of Y (128) and Z (256)."""
    arrays: dict[str, np.ndarray] = {}
    for index, (name, width) in enumerate((("Y", 128), ("Z", 256))):
        alive = width if VERDICTS[kind][index][0] == "healthy" else 9
        mixing = np.eye(alive, width) if alive == width else random.standard_normal((alive, width))
        decay = np.arange(1, alive + 1.0) ** -0.2
        turn = np.linalg.qr(random.standard_normal((width, width)))[0]
        cloud = (random.standard_normal((1024, alive)) * decay) @ mixing @ turn + 1e-4 * random.standard_normal(
            (1024, width)
        )
        scale = SPREAD[kind][index]
        cloud = scale * (cloud - cloud.mean(axis=0)) / cloud.std()
        arrays[f"{name}_spectrum"] = np.linalg.svd(cloud, compute_uv=False)
        arrays[f"{name}_std"] = cloud.std(axis=0)
        arrays[f"{name}_correlation"] = np.corrcoef(cloud[:, :128].T).astype(np.float16)
    arrays["untrained_Y_spectrum"] = 40 * np.arange(1, 129.0) ** -1.3
    return arrays


def picture_arrays(kind: str, random: np.random.Generator, count: int = 700) -> dict[str, np.ndarray]:
    """Pictures of six patterns: views, neighbours and a map with one cluster a pattern."""
    labels = random.integers(0, 6, count)
    thumbs = np.stack([picture(int(label), random) for label in labels])
    centres = 5 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1) * np.array([[1.0, 1.6]])
    tight = {"healthy": 1.1, "dimensional": 2.0, "complete": 9.0}[kind]
    rows = range(6)
    views = np.stack([view_set(row, random) for row in rows])
    near = [[label if random.random() < 0.85 else (label + 1) % 6 for _ in range(8)] for label in rows]
    return {
        "views": views,
        "neighbours_query": np.stack([picture(label, random) for label in rows]),
        "neighbours": np.stack([[picture(label, random) for label in row] for row in near]),
        "neighbours_similarity": np.sort(random.uniform(0.7, 0.99, (6, 8)))[:, ::-1],
        "neighbours_label": np.array(near),
        "query_label": np.arange(6),
        "map_xy": centres[labels] + tight * random.standard_normal((count, 2)),
        "map_label": labels,
        "map_thumbs": thumbs,
        "class_names": np.array(CLASSES),
    }


def picture(label: int, random: np.random.Generator, side: int = 32) -> np.ndarray:
    """One of six patterns in random colours, turned and moved at random: (side, side, 3) uint8."""
    turn, scale = random.uniform(0, np.pi), random.uniform(3, 5)
    down, across = np.mgrid[:side, :side] / side - random.uniform(0.3, 0.7, (2, 1, 1))
    u, v = across * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - across * np.sin(turn)
    wave = [
        np.sin(2 * np.pi * scale * u),
        np.minimum(np.sin(2 * np.pi * scale * u), np.sin(2 * np.pi * scale * v)) + 0.3,
        np.sin(2 * np.pi * scale * np.hypot(u, v)),
        np.sin(2 * np.pi * scale * u) * np.sin(2 * np.pi * scale * v),
        np.sin(2 * np.pi * scale * (u + 0.1 * np.sin(14 * v))),
        np.maximum(abs(u), abs(v)) - 0.22,
    ][label]
    ink, ground = random.uniform(20, 235, (2, 3))
    mixed = np.where((wave > 0)[..., None], ink, ground) + random.normal(0, 6, (side, side, 3))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def view_set(label: int, random: np.random.Generator) -> np.ndarray:
    """The picture and two crops of it in other colours: (3, 32, 32, 3)."""
    whole = picture(label, random)
    views = [whole]
    for _ in range(2):
        top, left = random.integers(0, 12, 2)
        crop = whole[top : top + 20, left : left + 20][np.ix_(np.arange(32) * 20 // 32, np.arange(32) * 20 // 32)]
        views.append(np.clip(crop * random.uniform(0.6, 1.3, 3), 0, 255).astype(np.uint8))
    return np.stack(views)


CONFIGURATION = """\
method: vicreg
data: shapes
backbone: test_resnet
epochs: 40
batch_size: 128
expander: 256-256-256
loss:
  invariance: 25.0
  variance: 25.0
  covariance: 1.0
optimizer:
  name: lars
  learning_rate: 0.3
  weight_decay: 1.0e-06
precision: 32
seed: 0
"""
