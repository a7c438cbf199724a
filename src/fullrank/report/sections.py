"""The parts of the page, each built from what is known and empty when nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullrank.report import figures, pictures, wording
from fullrank.report.content import Neighbours, ReportData, loss_terms
from fullrank.report.figures import Chart, Curve, HeatMap

MOST_COLOURS = 10  # more classes than colours that can be told apart: one ink, and a list to pick one from
SPECTRUM_RANGE = 0.01  # shares down to here are shown in any case: a full spectrum should look flat
LIVE = (
    ("effective_rank", "Effective rank"),
    ("std", "Standard deviation"),
    ("correlation", "Correlation between dimensions"),
)
GAIN = (
    ("trained", "Trained"),
    ("untrained", "Untrained network"),
    ("raw_pixels", "Raw pixels"),
    ("chance", "Largest class"),
)

SHORT = 0.5  # of a healthy run's steps: below, its curves say nothing of what this run should have reached

Picture = dict[str, Any]
MeasureRow = tuple[str, list[str], str]  # name, one value a branch, meaning


@dataclass(frozen=True)
class Row:
    """A bar of `share` (0 to 1) with its text; `ticks` are marked on it."""

    name: str
    share: float
    text: str
    role: str = "plain"
    note: str = ""
    ticks: Sequence[tuple[str, float | None, str]] = ()  # name, place, text


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run in a handful of words."""
    length = [wording.counted(summary[key], key) for key in ("epochs", "steps") if summary.get(key) is not None]
    time = [wording.duration(summary["seconds"])] if summary.get("seconds") is not None else []
    if summary.get("images_per_second"):
        time.append(f"{summary['images_per_second']:,.0f} images/s")
    if summary.get("peak_memory"):
        time.append(f"{summary['peak_memory'] / 1e9:.1f} GB at most")
    named = [(key.capitalize(), str(summary[key])) for key in ("method", "backbone", "data") if summary.get(key)]
    images = [("Images", f"{summary['images']:,}")] if summary.get("images") is not None else []
    rest = [("Training", ", ".join(length)), ("Time", ", ".join(time)), ("Date", str(summary.get("date") or ""))]
    return [*named, *images, *((name, text) for name, text in rest if text)]


def gain(data: ReportData) -> list[Row]:
    """kNN of the trained representation beside what came for free."""
    knn = data.summary.get("knn") or {}
    found = [(key, name, knn.get(key)) for key, name in GAIN]
    return [
        Row(name, inside(value / 100), wording.percent(value), "own" if key == "trained" else "plain")
        for key, name, value in found
        if value is not None and np.isfinite(value)
    ]


def losses(data: ReportData) -> list[Chart]:
    """The total, the learning rate, then every term."""
    weights = data.summary.get("settings") or {}
    charts = [
        run_chart(data, "loss", "Total loss", ["loss"]),
        run_chart(data, "rate", "Learning rate", ["learning_rate"]),
    ]
    for term in loss_terms(data.metrics):
        weight = weights.get(term)
        factor = f" × {wording.plain(weight)}" if isinstance(weight, int | float) else ""
        charts.append(run_chart(data, f"term-{term}", wording.title(term) + factor, [term]))
    shown = [one for one in charts if one]
    return [] if [one.key for one in shown] == ["rate"] else shown


def live(data: ReportData) -> list[Chart]:
    """Rank, spread and correlation of Y and Z over the training, and kNN accuracy."""
    charts = [run_chart(data, f"live-{key}", title, [f"Y_{key}", f"Z_{key}"], from_zero=True) for key, title in LIVE]
    charts.append(run_chart(data, "live-knn", "kNN accuracy, %", ["knn"], from_zero=True))
    return [one for one in charts if one]


def run_chart(
    data: ReportData, key: str, title: str, columns: Sequence[str], *, from_zero: bool = False
) -> Chart | None:
    """Columns of the metrics over the steps, a healthy run faint behind them."""
    steps = data.metrics.get("step", np.zeros(0))
    curves = [reference_curve(data, column) for column in columns]
    curves += [
        Curve(branch_of(column), branch_of(column) or "plain", steps, data.metrics[column])
        for column in columns
        if column in data.metrics
    ]
    ends = [0.0, steps.max()] if len(steps) > 1 else []
    kept = [one for one in curves if one]
    return figures.line_chart(key, title, kept, from_zero=from_zero, x_range=ends, log=False if from_zero else None)


def branch_of(column: str) -> str:
    """Y or Z where a metric is of one of them: its colour, and the name at the end of its curve."""
    return column[0] if column.startswith(("Y_", "Z_")) else ""


def reference_curve(data: ReportData, column: str) -> Curve | None:
    """The healthy run's curve of that metric, stretched over the steps of this one; none where this one is short."""
    steps = data.summary.get("steps")
    if data.reference is None or column not in data.reference.curves or not steps:
        return None
    if steps < SHORT * data.reference.steps:
        return None
    share, value = data.reference.curves[column].T
    return Curve("healthy run", f"reference {branch_of(column) or 'plain'}", share * data.summary["steps"], value)


def reference_source(data: ReportData, charts: Sequence[Chart]) -> str | bool:
    """What the pale curves are: where they come from, True when that is not known, False when none is drawn."""
    drawn = any(curve.role.startswith("reference") for chart in charts for curve in chart.curves)
    return drawn and data.reference is not None and (data.reference.source or True)


def spectra(data: ReportData) -> list[Chart]:
    """The spectrum of every branch that has one, all over the same range."""
    known = [(one, figures.relative(one.spectrum), figures.relative(one.untrained_spectrum)) for one in data.branches]
    lowest = min([SPECTRUM_RANGE, *(shares[-1] for _, shares, _ in known if shares is not None)])
    charts = [
        figures.spectrum_chart(f"spectrum-{one.name}", one.title, one.colour, shares, untrained, one.rank, lowest)
        for one, shares, untrained in known
        if shares is not None
    ]
    return [one for one in charts if one]


def deviations(data: ReportData) -> list[Chart]:
    """How strongly each dimension varies; the variance term's target where that term was used."""
    targets = {"Z": 1.0} if "variance" in data.metrics else {}
    charts = [
        figures.histogram(f"std-{one.name}", one.title, one.colour, one.deviations, targets.get(one.name))
        for one in data.branches
        if one.deviations is not None
    ]
    return [one for one in charts if one]


def correlations(data: ReportData) -> list[HeatMap]:
    """The correlation picture of every branch that has one."""
    return [
        figures.heat_map(f"correlation-{one.name}", one.title, one.correlation)
        for one in data.branches
        if one.correlation is not None
    ]


def measures(data: ReportData) -> tuple[list[MeasureRow], list[MeasureRow]] | None:
    """Rows of name, value a branch and meaning: those that say most, then the rest."""
    names = dict.fromkeys(name for one in data.branches for name in one.measures)
    first = [measure_row(data, name) for name in wording.MEASURES if name in names]
    rest = [measure_row(data, name) for name in names if name not in wording.MEASURES]
    return (first, rest) if first else None


def measure_row(data: ReportData, name: str) -> MeasureRow:
    """One measure of all branches, in the order of the page."""
    values = [wording.plain(one.measures.get(name, float("nan"))) for one in data.branches]
    return wording.title(name), values, {**wording.MEASURES, **wording.MORE_MEASURES}.get(name, "")


def views(data: ReportData) -> list[list[str]]:
    """Sets of pictures, the original first."""
    return [] if data.views is None else [[pictures.shown(one) for one in row] for row in data.views]


def neighbours(data: ReportData) -> list[tuple[Picture, list[Picture]]]:
    """Every query with its nearest pictures, each as source, label, similarity and whether the labels are the same."""
    found = data.neighbours
    return [] if found is None else [neighbour_row(found, data.classes, row) for row in range(len(found.queries))]


def neighbour_row(found: Neighbours, classes: Sequence[str], row: int) -> tuple[Picture, list[Picture]]:
    """One query and its neighbours."""
    own = None if found.query_labels is None else int(found.query_labels[row])
    query = {"source": pictures.shown(found.queries[row]), "label": class_name(classes, own)}
    near = []
    for column, pixels in enumerate(found.images[row]):
        label = None if found.labels is None else int(found.labels[row, column])
        near.append(
            {
                "source": pictures.shown(pixels),
                "label": class_name(classes, label),
                "similarity": "" if found.similarity is None else f"{found.similarity[row, column]:.2f}",
                "same": None if own is None or label is None else own == label,
            }
        )
    return query, near


def class_name(classes: Sequence[str], label: int | None) -> str:
    """The name of a class, its number where it has none, '' for an unlabelled sample."""
    if label is None or label < 0:
        return ""
    return classes[label] if label < len(classes) else f"class {label}"


def same_label(rows: Sequence[tuple[Picture, list[Picture]]]) -> str:
    """'43 of 48 neighbours carry the label of their query.'"""
    judged = [one["same"] for _, near in rows for one in near if one["same"] is not None]
    return f"{sum(judged)} of {len(judged)} neighbours here carry the label of their query." if judged else ""


def sample_map(data: ReportData) -> dict[str, Any] | None:
    """The map of the samples, with equal scales across and down: a path of dots a class, and what hovering shows."""
    if data.map is None:
        return None
    places = framed(data.map.points)
    labels = data.map.labels if data.map.labels is not None else np.full(len(places), -1)
    groups = map_groups(places, labels, data.classes)
    thing = "vector" if data.map.thumbnails is None else "picture"
    sheet = None if data.map.thumbnails is None else pictures.sprite(data.map.thumbnails)
    hover = {
        **figures.rounded(x=(places[:, 0] / 10, 2), y=(places[:, 1] / 10, 2)),
        "label": [int(label) for label in labels],
        "classes": {group["label"]: group["name"] for group in groups if group["name"]},
        "names": list(data.map.names),
        "thing": thing,
        "sprite": None if sheet is None else {"columns": sheet.columns, "width": sheet.width, "height": sheet.height},
    }
    named = sum(bool(group["name"]) for group in groups)
    summary = wording.counted(len(places), f"{thing}s") + (f" of {wording.counted(named, 'classes')}" if named else "")
    coloured = any(group["colour"] for group in groups)
    return {"groups": groups, "coloured": coloured, "sprite": sheet, "summary": summary, "hover": hover}


def framed(points: np.ndarray) -> np.ndarray:
    """(M, 2) points in a square of 1000 units with a margin, y pointing up in the data and down on the page."""
    points = points.astype(np.float64)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = np.abs(points - middle).max() or 1.0
    return 500 + 470 * (points - middle) / reach * np.array([1, -1])


def map_groups(places: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One group of dots a class; colours only while they can be told apart."""
    present = [int(label) for label in np.unique(labels)]
    named = [label for label in present if label >= 0]
    groups = []
    for label in present:
        mine = places[labels == label]
        groups.append(
            {
                "label": label,
                "name": class_name(classes, label),
                "colour": f"c{named.index(label)}" if label >= 0 and len(named) <= MOST_COLOURS else "",
                "count": len(mine),
                "path": "".join(f"M{x:.1f} {y:.1f}h0" for x, y in mine),
            }
        )
    return groups


def factors(data: ReportData) -> list[Row]:
    """What survived, best first, each beside the untrained network and chance."""
    rows = []
    for one in data.factors:
        fit = one.kind.lower().startswith("r")
        write = r2 if fit else accuracy
        places = [("untrained", one.untrained), ("chance", one.chance)]
        ticks = [(name, None if value is None else inside(value), write(value)) for name, value in places]
        rows.append(Row(one.name, inside(one.score), write(one.score), "own", "R²" if fit else one.kind, ticks))
    return sorted(rows, key=lambda row: -row.share)


def inside(share: float) -> float:
    """A score held between 0 and 1 for drawing."""
    return float(np.clip(np.nan_to_num(share), 0.0, 1.0))


def r2(score: float | None) -> str:
    """A coefficient of determination, which may be negative."""
    return wording.MISSING if score is None or not np.isfinite(score) else f"{score:.2f}"


def accuracy(share: float | None) -> str:
    """A share as a percentage."""
    return wording.percent(None if share is None else 100 * share)


def cell(value: Any, column: str = "") -> str:
    """Any value as the text of a table cell."""
    if value is None:
        return wording.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return wording.percent(value) if column.startswith("top") else wording.plain(value)
    if isinstance(value, Mapping):
        return listed([f"{key}: {cell(one)}" for key, one in value.items()])
    if isinstance(value, list | tuple):
        return listed([pair(one) if isinstance(one, list | tuple) else cell(one) for one in value])
    return str(value)


def pair(values: Sequence[Any]) -> str:
    """A pair inside a list: (name, reason) or (height, width)."""
    return (": " if any(isinstance(one, str) for one in values) else " × ").join(map(cell, values))


def listed(texts: Sequence[str]) -> str:
    """The first eight, and how many more."""
    more = [f"and {len(texts) - 8} more"] if len(texts) > 8 else []
    return ", ".join([*texts[:8], *more]) or "none"


def settings(data: ReportData) -> dict[str, Any] | None:
    """The configuration, and every record of the run that is not empty."""
    summary = data.summary
    records = {
        "Settings": table(None if data.configuration else summary.get("settings")),
        "Data check": table(summary.get("data_check"), wording.title),
        "Versions": table(summary.get("versions")),
        "Hardware": table(summary.get("hardware"), wording.title),
    }
    filled = {title: rows for title, rows in records.items() if rows}
    return {"configuration": data.configuration, "records": filled} if data.configuration or filled else None


def table(content: Any, name_of: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """Names and values of a record, in its order; what is not known is left out."""
    entries = (content or {}).items()
    return [(name_of(str(name)), cell(value)) for name, value in entries if value is not None]


def warnings(data: ReportData) -> list[tuple[str, str]]:
    """When (or '') and what was warned of during training."""
    entries = data.summary.get("warnings") or []
    known = [entry if isinstance(entry, Mapping) else {"message": entry} for entry in entries]
    return [
        (f"step {entry['step']:,}" if entry.get("step") is not None else "", str(entry.get("message", "")))
        for entry in known
    ]


def usage(data: ReportData) -> str:
    """Code that opens the weights, '' while there are none or the backbone is not known."""
    backbone = data.summary.get("backbone")
    if not backbone or data.summary.get("finished") is False:
        return ""
    use = (
        'mean, std = (torch.tensor(pixels[name]).view(-1, 1, 1) for name in ("mean", "std"))\n'
        "# images (n, C, H, W) with values in [0, 1] -> (n, width)\n"
        "representations = backbone((images - mean) / std)"
    )
    if data.creation is None:
        return (
            f"import fullrank\nimport torch\n\nrun = fullrank.load_run({data.name!r})  # the folder of this run\n"
            f'backbone, pixels = run.backbone, run.input["pixels"]\n{use}'
        )
    arguments = {"num_classes": 0, **data.creation}
    lines = "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
    taken = (data.summary.get("input") or {}).get("pixels") or {}
    pixels = {name: [round(value, 4) for value in taken[name]] for name in ("mean", "std") if name in taken}
    if len(pixels) < 2:
        use = "# (n, C, H, W) -> (n, width)\nrepresentations = backbone(images)"
    return (
        f"import timm\nimport torch\n\nbackbone = timm.create_model(\n    {str(backbone)!r},\n{lines}"
        f'    checkpoint_path="backbone.safetensors",\n).eval()\n' + (f"pixels = {pixels}\n" if pixels else "") + use
    )
