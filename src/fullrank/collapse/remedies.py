"""What to change, in words, for each cause of collapse; names the user's own settings where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Cause = Literal["none", "zeros", "point", "shrunk", "outliers", "clusters", "copies", "few", "dead", "floor", "empty"]
Settings = Mapping[str, Any]  # of a run: invariance, variance, covariance, learning_rate, warmup_epochs, precision


PUBLISHED = {"variance": 25, "covariance": 1}  # weights of VICReg's terms, where invariance has 25
MISSING = {
    "variance": "nothing holds the vectors apart",
    "covariance": "nothing keeps the dimensions from repeating one another",
}
# For settings that name neither the term nor the method's options against collapse.
INSTEAD = {
    "variance": "see that stop-gradient, predictor and momentum encoder are on; add a variance term (25)",
    "covariance": "add a covariance term (1); in Barlow Twins raise the redundancy coefficient, in a contrastive "
    "method use more negatives",
}
WITHOUT_SETTINGS = {
    name: f"raise the {name} coefficient (VICReg: {weight}), or add that term to a method without it"
    for name, weight in PUBLISHED.items()
}


@dataclass(frozen=True)
class Lever:
    """A weight that can be raised against collapse."""

    words: str  # what it is called
    now: float | int
    published: float | int
    is_own: bool = True  # whether the method has it by itself

    def advice(self, name: str) -> str:
        """What to do with it, given the term that it is or stands for."""
        if self.now == 0 and self.is_own:
            return f"{self.words} is 0, so {MISSING[name]}: set it to {self.published:g}"
        if self.now == 0:
            return f"add VICReg's {name} term with {self.words} {self.published:g}"
        if self.now >= self.published:
            return f"only if that does not help raise {self.words}, as {self.now:g} should be enough"
        return (
            f"raise {self.words}, now {self.now:g} ({'published' if self.is_option else 'VICReg'}: {self.published:g})"
        )

    @property
    def is_option(self) -> bool:
        """Whether the words are an option of the command."""
        return self.words.startswith("--")


# {variance} and {covariance} stand for the advice on that term.
FLOOR = (
    "look for a layer narrower than the embedding on the way to it, and train longer if the loss still falls; "
    "{covariance}"
)
NOTHING = "Nothing to change."
ADVICE: dict[Cause, str] = {
    "none": NOTHING,
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
    advice = ADVICE[cause].format_map({name: strengthen(name, settings) for name in PUBLISHED})
    if representation and cause not in ("none", "outliers", "clusters"):
        return f"{advice} {REPRESENTATION}"
    return advice


def strengthen(name: str, settings: Settings) -> str:
    """Variance holds vectors apart, covariance keeps dimensions different: that term, and gentler steps.

    What is switched off explains everything; a term at full strength is the last thing to change.
    """
    levers, off = levers_of(name, settings), switched_off(settings)
    if levers and levers[0].is_own and levers[0].now == 0:
        return f"{'; '.join([*off, levers[0].advice(name) + _both(name, settings)])}."
    if off:
        return f"{off[0]}; or {levers[-1].advice(name)}."
    if not levers:
        return f"{INSTEAD[name] if settings else WITHOUT_SETTINGS[name]}; {slower(settings)}.{precision(settings)}"
    terms = "; or ".join(lever.advice(name) for lever in levers if lever is levers[0] or levers[0].words != f"--{name}")
    steps = (slower(settings), terms) if levers[0].now >= levers[0].published else (terms, slower(settings))
    return f"{'; '.join(steps)}.{precision(settings)}"


def switched_off(settings: Settings) -> list[str]:
    """What a run leaves out that its method publishes (`off`), with the options that bring it back."""
    options = [f"--{option} {typed(value)}" for option, value in settings.get("off", {}).items()]
    words = "this run leaves out what its method publishes against collapse: turn it on again with"
    return [f"{words} {' '.join(options)}"] if options else []


def levers_of(name: str, settings: Settings) -> list[Lever]:
    """The weights that do the work of a term: from the table of a run (`levers`), or the setting of that name."""
    if "levers" in settings:
        table = settings["levers"][name].items()
        return [
            Lever(f"--{option}", now, published, is_own=not option.startswith("regularize."))
            for option, (now, published) in table
        ]
    return [Lever(f"the {name} coefficient", settings[name], PUBLISHED[name])] if name in settings else []


def _both(name: str, settings: Settings) -> str:
    """Where both terms are off, the other one too."""
    other = levers_of("covariance", settings) if name == "variance" else []
    return f" and {other[0].words} to {other[0].published:g}" if other and other[0].now == 0 and other[0].is_own else ""


def typed(value: Any) -> str:
    """A value as it stands on a command line."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


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
