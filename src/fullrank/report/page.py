"""A run folder -> one self-contained HTML page, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fullrank.files import write_text
from fullrank.report import figures, sections, wording
from fullrank.report.content import ReportData

CONTENTS = (
    ("gain", "What training bought"),
    ("losses", "Loss"),
    ("live", "Rank and spread"),
    ("spectra", "Spectrum"),
    ("correlations", "Correlation"),
    ("deviations", "Spread of each dimension"),
    ("measures", "Measures"),
    ("views", "Augmented views"),
    ("neighbours", "Nearest neighbours"),
    ("map", "Map"),
    ("factors", "What survived"),
    ("warnings", "Warnings"),
    ("evaluations", "Evaluations"),
    ("settings", "Configuration"),
    ("usage", "Use the weights"),
)


def build_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run and return its path.

    Reads summary.json, metrics.csv, config.yaml, diagnostics.npz and reference.json, each optional.
    Raises `InputError` when the folder holds none of them, when one is damaged, or when it cannot be written.
    """
    folder = Path(folder)
    write_text(folder / "report.html", render(ReportData.from_folder(folder)))
    return folder / "report.html"


def build_diagnosis_page(result: Mapping[str, Any], arrays: Mapping[str, np.ndarray], out: Path) -> Path:
    """Write the verdict on vectors from anywhere as a page.

    `result`: name, verdict, reason, remedy, measures (or a table of such verdicts under `verdict`).
    `arrays`: any of spectrum (min(n, d),) centred singular values, std (d,), correlation (k, k), map_xy (M, 2),
    map_label (M,), class_names, as in a run's diagnostics.npz.
    """
    write_text(Path(out), render(ReportData.from_diagnosis(result, arrays)))
    return Path(out)


def render(data: ReportData) -> str:
    """The whole page as text."""
    style, script = resource("style.css"), resource("script.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resource("page.html"))
    parts = page_parts(data)
    return template.render(
        **parts,
        contents=[(key, title) for key, title in CONTENTS if parts[key]],
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        figures_json=Markup(safe_json(hover_data(parts))),
    )


def page_parts(data: ReportData) -> dict[str, Any]:
    """Every part of the page by the name that the template uses."""
    summary = data.summary
    rows = sections.neighbour_rows(data)
    first_measures, more_measures = sections.measures(data)
    records = [
        ("Settings", sections.table(None if data.configuration else summary.get("settings"))),
        ("Data check", sections.table(summary.get("data_check"), wording.title)),
        ("Versions", sections.table(summary.get("versions"))),
        ("Hardware", sections.table(summary.get("hardware"), wording.title)),
    ]
    return {
        "name": data.name,
        "headline": wording.headline(data),
        "lead": wording.summary_sentence(data.branches),
        "facts": sections.facts(summary),
        "unfinished": summary.get("finished") is False,
        "worst": wording.worst(data.branches),
        "panels": sections.panels(data),
        "knn": summary.get("knn") or {},
        "knn_sentence": wording.knn_sentence(summary.get("knn") or {}),
        "gain": sections.gain(summary.get("knn")),
        "losses": sections.losses(data),
        "live": sections.live(data),
        "reference": sections.reference_source(data),
        "spectra": sections.spectra(data),
        "correlations": sections.correlations(data),
        "colour_scale": figures.colour_scale(),
        "deviations": sections.deviations(data),
        "measures": first_measures,
        "more_measures": more_measures,
        "branches": data.branches,
        "views": sections.views(data),
        "shown_channels": sections.shown_channels(summary),
        "neighbours": rows,
        "same_label": sections.same_label(rows),
        "map": sections.sample_map(data),
        "factors": sections.factor_rows(data),
        "warnings": sections.warnings(summary),
        "evaluations": sections.evaluations(summary),
        "configuration": data.configuration,
        "records": [one for one in records if one[1]],
        "settings": bool(data.configuration) or any(rows for _, rows in records),
        "usage": sections.usage(data),
    }


def hover_data(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the script reads out, by figure."""
    charts = [*parts["losses"], *parts["live"], *parts["spectra"], *parts["deviations"]]
    return {
        "charts": {one.key: one.hover for one in charts},
        "heat_maps": {one.key: one.hover for one in parts["correlations"]},
        "map": parts["map"].hover if parts["map"] else None,
    }


def safe_json(content: Any) -> str:
    """JSON that can stand inside a script element: no markup, no NaN."""
    text = json.dumps(without_nan(content), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def without_nan(content: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(content, Mapping):
        return {str(key): without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def resource(name: str) -> str:
    """A text file of this package."""
    return (files("fullrank.report") / name).read_text(encoding="utf-8")
