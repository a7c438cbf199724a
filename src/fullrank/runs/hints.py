"""What a warning or a remedy may speak of: how fast a run goes, and its options against collapse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fullrank import methods
from fullrank.collapse.remedies import PUBLISHED
from fullrank.runs.settings import method_options, recipe_for, recipe_settings

PACE = ("learning_rate", "warmup_epochs", "precision")
# Of `Switches`: on or off, where more of it is no remedy.
TRICKS = ("momentum", "stop_gradient", "predictor", "batch_norm")


def hints_of(settings: SimpleNamespace) -> dict[str, Any]:
    """The settings that say how fast a run goes, and two tables.

    `levers`: "variance" or "covariance" -> option -> (weight now, published weight), the method's own options first,
    then those that every method has. `off`: option -> usual value, for tricks that are published and left out.
    """
    kind = methods.get(settings.method)
    published, now = method_options(settings.method), settings.method_options
    usual = published | recipe_settings(recipe_for(settings.data, settings.recipe), settings.method)
    levers: dict[str, dict[str, tuple[float, float]]] = {term: {} for term in PUBLISHED}
    off = {option: usual[option] for option in TRICKS if lacks(now, published, option)}
    for option, term in kind.levers.items():
        if isinstance(published[option], bool | str):
            off |= {option: usual[option]} if lacks(now, published, option) else {}
        else:
            levers[term][option] = (now[option], published[option])
    for name, weight in PUBLISHED.items():
        levers[name][f"regularize.{name}"] = (settings.regularize.get(name, 0.0), weight)
    return {**{name: getattr(settings, name) for name in PACE}, "levers": levers, "off": off}


def lacks(now: dict[str, Any], published: dict[str, Any], option: str) -> bool:
    """Whether an option that is on as published is off."""
    return bool(published.get(option)) and (not now[option] or now[option] == "none")
