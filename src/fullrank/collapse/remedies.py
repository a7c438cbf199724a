"""What to change, in words, for each cause of collapse; names the user's own settings where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Cause = Literal["none", "zeros", "point", "shrunk", "outliers", "clusters", "copies", "few", "dead", "floor", "empty"]
Settings = Mapping[str, Any]  # of a run: invariance, variance, covariance, learning_rate, warmup_epochs, precision


@dataclass(frozen=True)
class Term:
    """What is to be said of a term of the loss."""

    published: int  # its weight in VICReg, where invariance has 25
    missing: str  # what follows from the weight 0
    instead: str  # for methods that have no such term


TERMS = {
    "variance": Term(
        25,
        "nothing holds the vectors apart",
        "see that stop-gradient, predictor and momentum encoder are on; add a variance term (25)",
    ),
    "covariance": Term(
        1,
        "nothing keeps the dimensions from repeating one another",
        "add a covariance term (1); in Barlow Twins raise the redundancy coefficient, in a contrastive method use "
        "more negatives",
    ),
}

# {variance} and {covariance} stand for the advice on that term.
FLOOR = (
    "look for a layer narrower than the embedding on the way to it, and train longer if the loss still falls; "
    "{covariance}"
)
ADVICE: dict[Cause, str] = {
    "none": "Nothing to change.",
    "zeros": "look for ReLUs that are all off in the last layers, for weights that decayed to zero or became NaN, and "
    "for an array that was never filled; {variance}",
    "point": "{variance}",
    "shrunk": "{variance}",
    "outliers": "look at the samples behind the equal vectors: blank, broken or repeated inputs give one vector. If "
    "they are real and different, it is collapse: {variance}",
    "clusters": "look at the samples behind one cluster: if they are copies, thin out the data. If not, make the two "
    "views of a sample differ more (crop scale, colour jitter), so that the cluster alone does not solve the task; in "
    "a method with prototypes use more of them and balance their use; {covariance}",
    "copies": "{covariance}",
    "few": "{covariance}",
    "dead": "units that never fire again come from steps that are too long: put batch norm before the ReLU, use less "
    "weight decay; {variance}",
    "floor": FLOOR,
    "empty": FLOOR,
}
REPRESENTATION = (
    "The loss holds Y only through the projector: if Z is healthy, give the projector more width, train longer, and "
    "lower the learning rate or the weight decay of the backbone."
)


def remedy(cause: Cause, settings: Settings, *, representation: bool = False) -> str:
    """The advice for a cause; `representation` says that the vectors come before the projector."""
    advice = ADVICE[cause].format_map({name: strengthen(name, settings) for name in TERMS})
    if representation and cause not in ("none", "outliers", "clusters"):
        return f"{advice} {REPRESENTATION}"
    return advice


def strengthen(name: str, settings: Settings) -> str:
    """Variance holds vectors apart, covariance keeps dimensions different: that term, and gentler steps.

    A term that is switched off explains everything; one at full strength is the last thing to change.
    """
    weight, term = settings.get(name), _term(name, settings)
    if weight == 0:
        return f"{term}."
    enough = weight is not None and weight >= TERMS[name].published
    steps = (slower(settings), term) if enough else (term, slower(settings))
    return f"{'; '.join(steps)}.{precision(settings)}"


def _term(name: str, settings: Settings) -> str:
    weight, term = settings.get(name), TERMS[name]
    if settings and name not in settings:
        return term.instead
    if weight is None:
        return f"raise the {name} coefficient (VICReg: {term.published}), or add that term to a method without it"
    if weight == 0:
        both = " and the covariance coefficient to 1" if name == "variance" and settings.get("covariance") == 0 else ""
        return f"the {name} coefficient is 0, so {term.missing}: set it to {term.published}{both}"
    if weight >= term.published:
        return f"only if that does not help raise the {name} coefficient, as {weight:g} should be enough"
    return f"raise the {name} coefficient, now {weight:g} (VICReg: {term.published})"


def slower(settings: Settings) -> str:
    """Lower learning rate or longer warm-up, with the present values."""
    rate, warmup = settings.get("learning_rate"), settings.get("warmup_epochs")
    now = f", now {rate:g}," if isinstance(rate, int | float) else ""
    length = f", now {warmup:g} epochs" if isinstance(warmup, int | float) else ""
    return f"lower the learning rate{now} or lengthen the warm-up{length}"


def precision(settings: Settings) -> str:
    """A sentence on precision for a run in float16, otherwise nothing."""
    chosen = str(settings.get("precision", ""))
    if "16" not in chosen or "bf16" in chosen:
        return ""
    return f" Train in bf16 or float32: the statistics of a batch overflow and vanish at precision {chosen}."
