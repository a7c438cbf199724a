"""What to change, in words, for each cause of collapse; names the user's own settings where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Cause = Literal["none", "zeros", "point", "shrunk", "outliers", "clusters", "copies", "few", "dead", "floor", "empty"]
Settings = Mapping[str, Any]  # of a run: invariance, variance, covariance, learning_rate, warmup_epochs, precision

PUBLISHED = {"variance": 25, "covariance": 1}  # VICReg, with invariance 25
MISSING = {
    "variance": "nothing holds the vectors apart",
    "covariance": "nothing keeps the dimensions from repeating one another",
}


def remedy(cause: Cause, settings: Settings, *, representation: bool = False) -> str:
    """The advice for a cause; `representation` says that the vectors come before the projector."""
    advice = ADVICE[cause](settings)
    if representation and cause not in ("none", "outliers", "clusters"):
        return f"{advice} {REPRESENTATION}"
    return advice


REPRESENTATION = (
    "The loss holds Y only through the projector: if Z is healthy, give the projector more width, train longer, and "
    "lower the learning rate or the weight decay of the backbone."
)


def hold_apart(settings: Settings) -> str:
    """Against vectors that become one: the variance term first."""
    if settings and "variance" not in settings:
        first = "see that stop-gradient, predictor and momentum encoder are on; add a variance term (25)"
    else:
        first = _term(settings, "variance")
    return _with_the_rest(settings, "variance", first)


def keep_different(settings: Settings) -> str:
    """Against dimensions that become one: the covariance term first."""
    if settings and "covariance" not in settings:
        first = (
            "add a covariance term (1); in Barlow Twins raise the redundancy coefficient, in a contrastive method use "
            "more negatives"
        )
    else:
        first = _term(settings, "covariance")
    return _with_the_rest(settings, "covariance", first)


def _term(settings: Settings, name: str) -> str:
    weight, published = settings.get(name), PUBLISHED[name]
    if weight is None:
        return f"raise the {name} coefficient (VICReg: {published}), or add that term to a method without it"
    if weight == 0:
        both = " and the covariance coefficient to 1" if name == "variance" and settings.get("covariance") == 0 else ""
        return f"the {name} coefficient is 0, so {MISSING[name]}: set it to {published}{both}"
    if weight >= published:
        return f"only if that does not help raise the {name} coefficient, as {weight:g} should be enough"
    return f"raise the {name} coefficient, now {weight:g} (VICReg: {published})"


def _with_the_rest(settings: Settings, name: str, first: str) -> str:
    """A term that is switched off explains everything; one at full strength is the last thing to change."""
    weight = settings.get(name)
    if weight == 0:
        return f"{first}."
    steps = (slower(settings), first) if weight is not None and weight >= PUBLISHED[name] else (first, slower(settings))
    return f"{'; '.join(steps)}.{precision(settings)}"


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


def _zeros(settings: Settings) -> str:
    return (
        "look for ReLUs that are all off in the last layers, for weights that decayed to zero or became NaN, and for "
        f"an array that was never filled; {hold_apart(settings)}"
    )


def _outliers(settings: Settings) -> str:
    return (
        "look at the samples behind the equal vectors: blank, broken or repeated inputs give one vector. If they are "
        f"real and different, it is collapse: {hold_apart(settings)}"
    )


def _clusters(settings: Settings) -> str:
    return (
        "look at the samples behind one cluster: if they are copies, thin out the data. If not, make the two views of "
        "a sample differ more (crop scale, colour jitter), so that the cluster alone does not solve the task; in a "
        f"method with prototypes use more of them and balance their use; {keep_different(settings)}"
    )


def _dead(settings: Settings) -> str:
    return (
        "units that never fire again come from steps that are too long: put batch norm before the ReLU, use less "
        f"weight decay; {hold_apart(settings)}"
    )


def _floor(settings: Settings) -> str:
    return (
        "look for a layer narrower than the embedding on the way to it, and train longer if the loss still falls; "
        f"{keep_different(settings)}"
    )


ADVICE = {
    "none": lambda settings: "Nothing to change.",
    "zeros": _zeros,
    "point": hold_apart,
    "shrunk": hold_apart,
    "outliers": _outliers,
    "clusters": _clusters,
    "copies": keep_different,
    "few": keep_different,
    "dead": _dead,
    "floor": _floor,
    "empty": _floor,
}
