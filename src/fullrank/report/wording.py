"""Numbers and verdicts in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fullrank.report.content import Branch, ReportData

HEADLINES = {
    "healthy": "No collapse",
    "dimensional collapse": "Dimensional collapse",
    "complete collapse": "Complete collapse",
}
SEVERITY = list(HEADLINES)
MEANINGS = {
    "healthy": "The vectors spread over many independent directions.",
    "dimensional collapse": "The vectors differ, but only along a few directions: the others repeat them or are empty.",
    "complete collapse": "Every input gets almost the same vector: nothing can be read from it.",
}
ROLES = {
    "Y": "what the backbone gives, and what you keep",
    "Z": "what the loss sees, thrown away after training",
    "vectors": "as they were given",
}
# What a measure says, and which way is good. The first ones stand in the table, the rest below it.
MEASURES = {
    "effective_rank": "How many directions carry the information, after the mean is taken away. The larger the better.",
    "alive_directions": "Directions above the noise floor of the spectrum, or all that are not empty.",
    "possible_rank": "The most that so many vectors of this width can have.",
    "directions_95": "Fewest directions that hold 95% of the variance. Under ten is few.",
    "std": "Mean standard deviation of a dimension. Near 0 means that every input gives the same value.",
    "variance_share": "Share of the mean squared length that differs between inputs. Near 0 means one point.",
    "absolute_correlation": "Mean absolute correlation of two dimensions. 0 means that none repeats another.",
    "dead_dimensions": "Dimensions that hardly vary at all.",
    "copied_dimensions": "Dimensions that repeat an earlier one.",
    "clusters": "Tight groups that hold nearly all of the variance between them.",
    "agreement": "How much two views of one picture share. Near 0 means nothing worth training on.",
    "predicted_share": "How much a predictor's output varies, as a share of what Z does. Near 0 teaches nothing.",
    "n": "Vectors measured.",
    "d": "Dimensions of each vector.",
}
MORE_MEASURES = {
    "rankme": "Effective rank with the mean left in: low also when all vectors share a large offset.",
    "variance_rank": "Effective rank of the variances instead of the singular values: large directions count more.",
    "participation_ratio": "How many directions share the variance evenly.",
    "nesum": "Total variance in units of the largest direction. 1 means one direction has it all.",
    "stable_rank": "The same with the mean left in.",
    "pseudo_condition_number": "The smallest singular value over the largest.",
    "directions_99": "Fewest directions that hold 99% of the variance.",
    "alpha": "How fast the spectrum falls, as a power. Near 1 is good; large means few directions.",
    "normalised_std": "Standard deviation at length 1. 1 over the root of the width is full spread.",
    "offset": "Length of the mean vector.",
    "squared_correlation": "Mean squared correlation of two dimensions.",
    "alignment": "Mean squared distance of two views of one picture at length 1. Small is good.",
    "uniformity": "How evenly the vectors cover the sphere. The more negative the better.",
    "self_cluster": "How much vectors crowd together on the sphere: 0 for none, 1 for a single point.",
}
PARTS = {"box": "boxes", "mask": "masks"}
WAYS = {"i2t": "captions", "t2i": "images"}
PROPER = {
    "n": "n",
    "d": "d",
    "k": "k",
    "knn": "kNN",
    "rankme": "RankMe",
    "nesum": "NESum",
    "alpha": "Alpha (α-ReQ)",
    "std": "Standard deviation",
    "normalised_std": "Standard deviation at length 1",
    "absolute_correlation": "Correlation",
    "directions_95": "Directions for 95%",
    "directions_99": "Directions for 99%",
    "top1": "Top-1",
    "top5": "Top-5",
    "n_train": "Learnt from",
    "n_test": "Tested on",
}
SCORES = {
    **{"top1": "top-1", "top5": "top-5", "per_class": "mean of classes"},
    **{"best": "best epoch", "map": "mAP", "map_11": "mAP, 11 points"},
    **{f"{kind}_ap{of}": f"AP{of} of {words}" for kind, words in PARTS.items() for of in ("", "50", "75")},
    **{f"{ways}_r{k}": f"R@{k} of {words}" for ways, words in WAYS.items() for k in (1, 5, 10)},
    **{f"voc_ap{of}": f"VOC 2007's AP{of}" for of in ("", "50", "75")},
    **{"rsum": "sum of recalls"},
}
"""What the scores of evaluations are called; all are percentages, but the sum."""
MISSING = "–"
FREE = (("raw_pixels", "the raw pixels"), ("chance", "naming the largest class every time"))  # what costs no training


def plain(value: float) -> str:
    """Three significant digits, no exponent where one can be avoided: 0.0123, 4.56, 12,300."""
    if not math.isfinite(value):
        return MISSING
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{int(value):,}"
    if size >= 1e6 or size < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}×10{superscript(int(exponent))}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def superscript(exponent: int) -> str:
    """-3 -> '⁻³'."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def percent(score: float | None) -> str:
    """72.134 -> '72.1%'."""
    return MISSING if score is None or not math.isfinite(score) else f"{score:.1f}%"


def score(scores: Mapping[str, float], name: str, digits: int = 1) -> str:
    """'51.0', or '51.0 ± 0.3' where the scores have its standard deviation over seeds."""
    return with_spread(scores[name], scores.get(f"{name}_std"), digits)


def with_spread(value: float, spread: float | None, digits: int = 1) -> str:
    """'51.0', or '51.0 ± 0.3'."""
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def spread(evaluation: Mapping[str, Any]) -> list[str]:
    """What ± stands for in an evaluation of several seeds; nothing of one."""
    seeds = evaluation.get("seeds") or (evaluation.get("settings") or {}).get("seeds", 1)
    return [f"± is the standard deviation over {seeds} seeds"] if seeds > 1 else []


def duration(seconds: float) -> str:
    """271 -> '4 min 31 s'; the two largest units."""
    whole = round(seconds)
    for size, name, smaller, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def counted(count: float, things: str) -> str:
    """(1, 'steps') -> '1 step', (2.5, 'epochs') -> '2.5 epochs'."""
    one = things.removesuffix("es") if things.endswith("sses") else things.removesuffix("s")
    number = f"{int(count):,}" if count == int(count) else plain(count)
    return f"{number} {one if count == 1 else things}"


def title(name: str) -> str:
    """A column or measure by its name on the page: 'effective_rank' -> 'Effective rank'."""
    spaced = name.replace("_", " ").strip()
    return PROPER.get(name, spaced[:1].upper() + spaced[1:])


def worst(branches: Sequence[Branch]) -> str:
    """The gravest verdict, '' when nothing was judged."""
    judged = [one.verdict for one in branches if one.verdict in SEVERITY]
    return max(judged, key=SEVERITY.index, default="")


def headline(data: ReportData) -> str:
    """The page in at most three words."""
    return HEADLINES.get(worst(data.branches), "Not judged yet")


def short(one: Branch) -> str:
    """'the embedding Z'."""
    known = {"Y": "the representation Y", "Z": "the embedding Z", "vectors": "the array"}
    return known.get(one.name, f"the array {one.name}")


def summary_sentence(branches: Sequence[Branch]) -> str:
    """Which of them collapsed, in one sentence."""
    judged = [one for one in branches if one.verdict in SEVERITY]
    bad = [one for one in judged if one.verdict != "healthy"]
    good = [one for one in judged if one.verdict == "healthy"]
    if not bad:
        sentence = " and ".join(short(one) for one in good)
        verb = "both spread" if len(good) > 1 else "spreads"
        return f"{capital(sentence)} {verb} over many independent directions." if good else ""
    kinds = {one.verdict for one in bad}
    if len(kinds) > 1:
        return " ".join(f"{capital(short(one))}: {one.verdict}." for one in bad)
    sentence = f"{capital(' and '.join(short(one) for one in bad))} {'have' if len(bad) > 1 else 'has'} collapsed"
    return f"{sentence}, {good[0] and short(good[0])} has not." if good else f"{sentence}."


def capital(sentence: str) -> str:
    """The same with a capital letter first."""
    return sentence[:1].upper() + sentence[1:]


def knn_sentence(knn: Mapping[str, Any]) -> str:
    """What training bought, in one sentence; '' when it was not measured."""
    trained, untrained = knn.get("trained"), knn.get("untrained")
    if trained is None or untrained is None:
        return ""
    gain, pictures = trained - untrained, knn.get("queries")
    direction = "above" if gain >= 0 else "below"
    counted_on = f" on {counted(pictures, 'pictures')}" if pictures else ""
    better = [f"{words} ({percent(knn[key])})" for key, words in FREE if trained <= (knn.get(key) or -math.inf)]
    return (
        f"Reading the label from the nearest neighbours is right {percent(trained)} of the time{counted_on}, "
        f"{abs(gain):.1f} points {direction} the same network before training."
        + (f" That is no better than {' and '.join(better)}: train for longer." if better else "")
    )
