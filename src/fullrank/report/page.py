"""A run folder -> one self-contained HTML page, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from fullrank.files import plain, write_text
from fullrank.report import figures, sections, wording
from fullrank.report.content import ReportData
from fullrank.report.evaluations import evaluations

CONTENTS: tuple[tuple[str, str, Callable[[ReportData], Any]], ...] = (
    ("gain", "What training bought", sections.gain),
    ("losses", "Loss", sections.losses),
    ("live", "Rank and spread", sections.live),
    ("spectra", "Spectrum", sections.spectra),
    ("correlations", "Correlation", sections.correlations),
    ("deviations", "Spread of each dimension", sections.deviations),
    ("measures", "Measures", sections.measures),
    ("views", "Augmented views", sections.views),
    ("neighbours", "Nearest neighbours", sections.neighbours),
    ("map", "Map", sections.sample_map),
    ("factors", "What survived", sections.factors),
    ("warnings", "Warnings", sections.warnings),
    ("evaluations", "Evaluations", evaluations),
    ("settings", "Configuration", sections.settings),
    ("usage", "Use the weights", sections.usage),
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
    parts = {key: build(data) for key, _, build in CONTENTS}
    return fill(
        resource("page.html"),
        hover_data(parts),
        **parts,
        data=data,
        summary=data.summary,
        contents=[("verdict", "Verdict"), *((key, title) for key, title, _ in CONTENTS if parts[key])],
        page_title=f"{data.name}: {wording.headline(data).lower()}",
        name=data.name,
        heading=wording.headline(data),
        facts=sections.facts(data.summary),
        worst=wording.worst(data.branches),
        reference=sections.reference_source(data, [*parts["losses"], *parts["live"]]),
        colour_scale=figures.colour_scale(),
        glyph_dots=figures.glyph,
        sections=sections,
        wording=wording,
    )


def fill(template: str, hover: Mapping[str, Any], **content: Any) -> str:
    """A page of the library's style: `template` filled, with style and script inside and what its figures read out.

    The template extends layout.html, which takes `page_title`, `name`, `heading`, `facts` and `contents` (places and
    titles of the sections), and may take `chart` and `bars` from macros.html.
    """
    style, script = resource("style.css"), resource("script.js")
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(template).render(
        **content,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        figures_json=Markup(safe_json(hover)),
    )


def hover_data(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the script reads out, by figure."""
    charts = [*parts["losses"], *parts["live"], *parts["spectra"], *parts["deviations"]]
    return {
        "charts": {one.key: one.hover for one in charts},
        "heat_maps": {one.key: one.hover for one in parts["correlations"]},
        "map": parts["map"]["hover"] if parts["map"] else None,
    }


def safe_json(content: Any) -> str:
    """JSON that can stand inside a script element: no markup, no NaN."""
    text = json.dumps(plain(content), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def resource(name: str) -> str:
    """A text file of this package."""
    return (files("fullrank.report") / name).read_text(encoding="utf-8")
