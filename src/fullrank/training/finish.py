"""What a run leaves behind: weights, what training bought, the verdict, the report."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

from fullrank.evaluation.features import choose_device
from fullrank.files import write_atomically
from fullrank.machine import hardware, versions
from fullrank.report import build_report
from fullrank.runs.build import build_method
from fullrank.runs.diagnose import as_the_loss_sees, embedding_arrays, judge, predicted_share, spectra
from fullrank.runs.folder import METRICS, Run
from fullrank.training.adapter import Adapter
from fullrank.training.gain import FINAL, Measured, gain, measured_parts
from fullrank.training.monitor import Monitor, read_metrics
from fullrank.training.prepare import Prepared
from fullrank.training.report_data import pictures_for_report, reference_curves


def finish(
    run: Run,
    adapter: Adapter,
    prepared: Prepared,
    monitor: Monitor,
    *,
    cost: Mapping[str, Any],
    console: Console,
) -> None:
    """Write weights, comparison, verdict and report of a run that reached its end, and what its training cost."""
    settings = adapter.settings
    device = choose_device("cpu" if settings.accelerator == "cpu" else "auto")
    method = adapter.method.float().to(device).eval()
    run.write_backbone(method.backbone)
    console.print("training is done; measuring what it bought")
    untrained = build_method(settings, prepared.facts)[0].to(device).eval()
    rows = monitor.rows or read_metrics(run.folder / METRICS)  # nothing was left to train: only to measure
    steps = int(rows[-1]["step"])
    parts = measured_parts(prepared, settings, FINAL, seen=steps * settings.batch_size)
    measured = [Measured(part, prepared, method, untrained, device) for part in parts]
    embeddings = as_the_loss_sees({name: measured[0][name] for name in ("Y", "Z")}, method)
    verdicts = judge(embeddings, method, settings, predicted=predicted_share(method, measured[0]["Z"]))
    summary = run.summary | {
        "method": settings.method,
        "backbone": settings.backbone,
        "data": prepared.source.name,
        "images": prepared.usable,
        "epochs": round(steps * settings.accumulate / adapter.plan.batches_per_epoch, 2),
        "steps": steps,
        "seconds": round(cost["seconds"], 1),
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        "peak_memory": cost["peak_memory"],
        "monitor_share": round(monitor.seconds / max(cost["seconds"], 1e-9), 4),
        "verdict": {name: verdict.to_dict() for name, verdict in verdicts.items()},
        "settings": run.summary["settings"],
        "versions": versions(),
        "hardware": hardware(device),
        "date": datetime.date.today().isoformat(),
        "data_check": prepared.check.to_dict(),
        "warnings": monitor.warnings,
        "evaluations": [],
    }
    if len(measured) == 2:
        summary |= gain(measured[0], measured[1], prepared.source.factor_kinds)
    before = as_the_loss_sees({name: measured[0][name] for name in ("untrained_Y", "untrained_Z")}, method)
    arrays = embedding_arrays(embeddings) | spectra(before)
    if settings.report:
        arrays |= pictures_for_report(method.backbone, prepared, device)
    write_atomically(run.folder / "diagnostics.npz", lambda file: np.savez_compressed(file, **arrays))
    reference_curves(run, settings)
    run.write_summary(summary | {"finished": True})
    if settings.report:
        build_report(run.folder)
