"""An optimiser, a schedule and a view recipe as rows of a table: what they are called -> what they are, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fullrank.methods import Optimization
from fullrank.schedules import Schedule
from fullrank.views import Recipe, View


def optimization_rows(published: Optimization) -> dict[str, str]:
    """The published recipe in words."""
    return {
        "optimiser": ", ".join([published.optimizer.upper(), *map(worded, published.options.items())]),
        "learning rate": rate_words(published),
        "schedule": schedule_words(published.schedule),
        "weight decay": decay_words(published),
        "batch": f"{published.batch_size} samples over all devices",
        "epochs": str(published.epochs),
    }


def worded(option: tuple[str, Any]) -> str:
    """A further argument of an optimiser."""
    return f"{option[0]} {value_words(option[1])}"


def value_words(value: Any) -> str:
    """A value as it is typed; nothing becomes "none"."""
    if isinstance(value, tuple | list):
        return ", ".join(map(value_words, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return number(value) if isinstance(value, float) else str(value) or "none"


def number(value: float) -> str:
    """A number as people write it: 1e-6."""
    return f"{value:g}".replace("e-0", "e-")


def rate_words(published: Optimization) -> str:
    """The highest learning rates."""
    share = published.batch_size / 256
    words = (
        f"{number(published.learning_rate)} per 256 samples, {number(published.learning_rate * share)} for the batch"
    )
    if published.bias_learning_rate is not None:
        words += f"; {number(published.bias_learning_rate)} per 256 for biases and norms"
    if published.constant_rate:
        words += f"; constant for {', '.join(published.constant_rate)}"
    return words


def decay_words(published: Optimization) -> str:
    """How much weight decay, and on what."""
    words = f"{number(published.weight_decay)}"
    if published.weight_decay_end is not None:
        words += f", going to {number(published.weight_decay_end)} along a cosine"
    words += ", on every parameter" if published.decays_1d else ", not on biases and norms"
    return words + (f", nor on {', '.join(published.no_decay)}" if published.no_decay else "")


def schedule_words(schedule: Schedule) -> str:
    """The course of the learning rate."""
    parts = []
    if schedule.warmup_epochs:
        start = f" from {number(schedule.start_factor)} of the highest" if schedule.start_factor else " from 0"
        parts.append(f"{schedule.warmup_epochs:g} epochs of linear warm-up{start}")
    if schedule.milestones:
        when = " and ".join(f"{100 * share:.3g} %" for share in schedule.milestones)
        parts.append(f"times {schedule.gamma:g} after {when} of the run")
    elif schedule.end_factor == 1:
        parts.append("constant")
    else:
        end = f"{number(schedule.end_factor)} of the highest" if schedule.end_factor else "0"
        horizon = f" over {schedule.stretch:g} times the run, cut off at its end" if schedule.stretch != 1 else ""
        parts.append(f"half a cosine to {end}{horizon}")
    return ", then ".join(parts) + (", changed between epochs only" if schedule.per_epoch else "")


def view_rows(recipe: Recipe) -> dict[str, list[str]]:
    """How the views differ and what they share: one column for every kind of view."""
    kinds = list(dict.fromkeys(recipe))
    rows = {"number": [str(sum(each.count for each in recipe if each == view)) for view in kinds]}
    rows |= {row: [words(view) for view in kinds] for row, words in VIEW_ROWS.items()}
    for field in fields(View):
        values = [getattr(view, field.name) for view in kinds]
        if field.name not in TOLD and any(value != field.default for value in values):
            rows[field.name.replace("_", " ")] = [value_words(value) for value in values]
    return {row: words for row, words in rows.items() if any(word != NEVER for word in words)}


def probability(share: float, words: str = "") -> str:
    """How often something is done, and how."""
    if not share:
        return NEVER
    return ": ".join(filter(None, ("always" if share == 1 else f"p {share:g}", words)))


def puzzle(view: View) -> str:
    """The pieces that a view is cut into."""
    if view.grid == 1:
        return NEVER
    kept = f", {view.pieces} kept" if view.pieces else ""
    moved = f", moved by 0 to {view.shift} px" if view.shift else ""
    colours = "each" if view.apart else "together"
    return f"{view.grid} x {view.grid} pieces of {view.piece} px{moved}{kept}, colours {colours}"


def span(values: tuple[float, float]) -> str:
    """A range."""
    return " to ".join(f"{value:.3g}" for value in values)


NEVER = "-"
# The rows of a table of views; fields of `View` beyond those that they tell of follow where they are not the default.
VIEW_ROWS: dict[str, Callable[[View], str]] = {
    "pixels": lambda view: str(view.size),
    "crop, share of the area": lambda view: NEVER if view.square else span(view.scale),
    "crop, width / height": lambda view: "1" if view.square else span(view.ratio),
    "resize": lambda view: view.interpolation,
    "flip": lambda view: probability(view.flip),
    "jitter of brightness, contrast, saturation, hue": lambda view: probability(
        view.jitter_probability if any(view.jitter) else 0, value_words(view.jitter)
    ),
    "grayscale": lambda view: probability(view.grayscale),
    "blur": lambda view: probability(view.blur, f"sigma {span(view.blur_sigma)} px"),
    "RandAugment": lambda view: f"{view.rand_augment} operations, p 0.5 each" if view.rand_augment else NEVER,
    "posterize, sharpness, solarize, autocontrast": lambda view: probability(view.photometric),
    "solarize": lambda view: probability(view.solarize, f"from {view.solarize_threshold:.3g} up"),
    "puzzle": puzzle,
}
TOLD = {
    "size", "scale", "ratio", "interpolation", "flip", "jitter", "jitter_probability", "grayscale", "blur",
    "blur_sigma", "blur_kernel", "solarize", "solarize_threshold", "count", "grid", "piece", "shift", "pieces", "apart",
    "rand_augment", "photometric",
}  # fmt: skip
