"""`fullrank diagnose`: a run, a checkpoint or stored vectors -> a verdict on each embedding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fullrank import collapse
from fullrank.collapse import Verdict, limits
from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.data.vectors import read_vectors
from fullrank.errors import InputError
from fullrank.evaluation.features import embed_pictures
from fullrank.methods import Method
from fullrank.report import build_diagnosis_page
from fullrank.runs.evaluate import chosen_data, pictures_for
from fullrank.runs.folder import CHECKPOINT, Run, restore
from fullrank.runs.hints import hints_of
from fullrank.terminal import log_console

# Pictures that are embedded when a run or a checkpoint is diagnosed.
DIAGNOSED = 5000
# Updates of batch norm's running statistics after which 1 % of their start is left (rate 0.1).
SETTLED = 44
TOO_EARLY = (
    f"the scale of Z was not judged: in evaluation mode it means something after {SETTLED} steps, when the running "
    "statistics of batch norm have left their start."
)
ON_SPHERE = "Z is judged at length 1: the loss sees its directions alone."
SILENT_PREDICTOR = "the predictor gives nearly the same vector for every picture"
HALF_PRECISION = 1e-2
CHECKPOINT_SUFFIX = Path(CHECKPOINT).suffix
# Of the correlation matrix, a picture of so many dimensions, from so many vectors.
SHOWN_DIMENSIONS, CORRELATED_ROWS = 128, 5000


def diagnose_path(
    path: Any, *, data: Any, split: str | None, include: str | None, target_std: float | None, report: str | None
) -> dict[str, Verdict]:
    """What `fullrank.diagnose` does."""
    embeddings, verdicts = judged(path, data, split, include, target_std)
    if report is not None:
        out = Path(report)
        if not out.parent.is_dir():
            raise InputError(f"cannot write {out}: {out.parent} is no folder")
        name = str(path) if isinstance(path, str | Path) else "array"
        table = {each: verdict.to_dict() for each, verdict in verdicts.items()}
        build_diagnosis_page({"name": name, "verdict": table}, embedding_arrays(embeddings), out)
        log_console().print(f"report  {out}", markup=False)
    return verdicts


def embedding_arrays(embeddings: dict[str, Any]) -> dict[str, Any]:
    """What a page draws of each embedding: centred spectrum, std of every dimension, a part of the correlations."""
    arrays: dict[str, np.ndarray] = {}
    for name, vectors in embeddings.items():
        statistics = collapse.Statistics.of(vectors, name)
        std = collapse.standard_deviation(statistics).numpy()
        alive = np.flatnonzero(std > 0)
        shown = alive[np.linspace(0, len(alive) - 1, min(SHOWN_DIMENSIONS, len(alive))).astype(int)]
        rows = np.asarray(vectors[:CORRELATED_ROWS], dtype=np.float64)[:, shown]
        correlation = np.corrcoef(rows, rowvar=False) if len(shown) > 1 else np.ones((len(shown), len(shown)))
        arrays |= {
            f"{name}_spectrum": collapse.singular_values(statistics, centred=True).numpy(),
            f"{name}_std": std,
            f"{name}_correlation": np.asarray(np.nan_to_num(correlation), np.float16),
        }
    return arrays


def spectra(embeddings: dict[str, Any]) -> dict[str, Any]:
    """The centred spectrum of each embedding, for a page to draw."""
    return {
        f"{name}_spectrum": collapse.singular_values(vectors, centred=True).numpy()
        for name, vectors in embeddings.items()
    }


def judged(
    path: Any, data: Any, split: str | None, include: str | None, target_std: float | None
) -> tuple[dict[str, Any], dict[str, Verdict]]:
    """The vectors by name, and the verdict on each."""
    if isinstance(path, np.ndarray | torch.Tensor):
        embeddings: dict[str, Any] = {"vectors": path}
    else:
        path = path.folder if isinstance(path, Run) else Path(path)
        checkpoint = Run(path).folder / CHECKPOINT if path.is_dir() else path
        if checkpoint.suffix == CHECKPOINT_SUFFIX:
            return judge_checkpoint(checkpoint, data, split, include)
        embeddings = dict(read_vectors(path))
    verdicts = {name: collapse.diagnose(each, name=name, target_std=target_std) for name, each in embeddings.items()}
    return embeddings, verdicts


def as_the_loss_sees(embeddings: dict[str, Any], method: Method) -> dict[str, Any]:
    """The same, with every Z scaled to length 1 where the method's loss is about directions alone."""
    scaled = {name: values for name, values in embeddings.items() if method.on_sphere and name.endswith("Z")}
    return embeddings | {name: collapse.to_sphere(values) for name, values in scaled.items()}


def predicted_share(method: Method, embedding: Any) -> float | None:
    """How much a predictor's output varies over pictures, as a share of what Z does.

    None where there is no predictor, nothing to predict, or too few steps for outputs in evaluation mode to mean much.

    Args:
        method: in evaluation mode.
        embedding: Z as the network gives it, (n, d).
    """
    predictor = getattr(method.network, "predictor", None)
    if predictor is None or not settled(method):
        return None
    embedding = embedding.to(next(predictor.parameters()).device).float()
    with torch.inference_mode():
        pair = [predictor(embedding), embedding]
        if method.on_sphere:
            pair = list(map(collapse.to_sphere, pair))
        predicted, own = (float(values.var(dim=0).sum()) for values in pair)
    return predicted / own if own > 0 else None


def is_silent(measures: dict[str, float]) -> bool:
    """Whether a predictor says nearly the same of every picture, by the measures of Z."""
    return measures.get("predicted_share", float("inf")) < limits.SILENT


def with_silent_predictor(verdict: Verdict, hints: dict[str, Any], settings: SimpleNamespace) -> Verdict:
    """The verdict on Z where the predictor says the same of every picture: a healthy Z does not help then."""
    remedies = [] if settings.method_options["batch_norm"] else ["turn batch norm on with --batch_norm true"]
    if any(weight > 0 for weight, _ in hints["levers"]["variance"].values()):
        remedies.append("leave the predictor out with --predictor none: the variance term keeps Z apart without it")
    words = ", or ".join(remedies or ["train longer, or with another learning rate"])
    others = [] if verdict.verdict == "healthy" else [verdict.remedy]
    share = 100 * verdict.measures["predicted_share"]
    remark = (
        f"{SILENT_PREDICTOR}: its output varies {share:.2g} % as much as Z. Agreement then teaches the network "
        "nothing, and only what the loss asks of Z itself does."
    )
    remedy = " ".join([*others, f"{words[0].upper()}{words[1:]}."])
    return dataclasses.replace(verdict, remedy=remedy, remarks=[remark, *verdict.remarks])


def judge(
    embeddings: dict[str, Any], method: Method, settings: SimpleNamespace, *, predicted: float | None = None
) -> dict[str, Verdict]:
    """Verdicts on Y and Z of a method; the scale of Z counts where the loss asks for one, or for none.

    Args:
        embeddings: Y and Z, as the loss sees them.
        method: whose they are.
        settings: of the run.
        predicted: what `predicted_share` gives.
    """
    hints, verdicts = hints_of(settings), {}
    for name, values in embeddings.items():
        on_sphere = name == "Z" and has_length_one(values)
        target = method.target_std if name == "Z" and not on_sphere else None
        too_early = (target is not None or on_sphere) and not settled(method)
        target, on_sphere = (None, False) if too_early else (target, on_sphere)
        verdict = collapse.diagnose(values, name=name, target_std=target, on_sphere=on_sphere, settings=hints)
        # What the loss asks for is known here: nothing of Y, and nothing of Z or all that was judged.
        remarks = [remark for remark in verdict.remarks if "target_std" not in remark]
        remarks += [TOO_EARLY] if too_early else [ON_SPHERE] if on_sphere else []
        verdict = dataclasses.replace(verdict, remarks=remarks)
        apart = name == "Z" and verdict.verdict != "complete collapse"
        if apart and predicted is not None:
            verdict = dataclasses.replace(verdict, measures={**verdict.measures, "predicted_share": predicted})
            if is_silent(verdict.measures):
                verdict = with_silent_predictor(verdict, hints, settings)
        verdicts[name] = verdict
    return verdicts


def has_length_one(embedding: Any) -> bool:
    """Whether all vectors have length 1, up to the rounding of half precision: their scale then means nothing."""
    return bool((embedding.float().norm(dim=1) - 1).abs().max() < HALF_PRECISION)


def settled(method: Method) -> bool:
    """Whether the running statistics of batch norm have left their start: before, outputs are small in evaluation."""
    counts = [int(value) for name, value in method.named_buffers() if name.endswith("num_batches_tracked")]
    return min(counts, default=SETTLED) >= SETTLED


def judge_checkpoint(
    path: Path, data: Any, split: str | None, include: str | None
) -> tuple[dict[str, Any], dict[str, Verdict]]:
    """Y and Z of some pictures through the network of a checkpoint, and the verdict on each."""
    method, settings, taken = restore(path)
    source = open_pictures(**chosen_data(settings, data, split, include), most=DIAGNOSED)
    chosen = np.unique(np.linspace(0, len(source) - 1, min(DIAGNOSED, len(source))).astype(int))
    pictures = pictures_for(Pixels.from_dict(taken["pixels"]), taken["image_size"], source, chosen)
    (representation, embedding), _ = embed_pictures(pictures, method.embed)
    embeddings = as_the_loss_sees({"Y": representation, "Z": embedding}, method)
    return embeddings, judge(embeddings, method, settings, predicted=predicted_share(method, embedding))
