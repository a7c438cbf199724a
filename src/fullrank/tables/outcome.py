"""What runs gave: of one or of several seeds, its accuracy, the state of its embedding, its time and its memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.evaluation.repeated import SPREAD, mean_of
from fullrank.report.wording import MISSING, score
from fullrank.runs.folder import METRICS, Run
from fullrank.tables.talk import COLLAPSE, Cell
from fullrank.tables.work import judge_key, judged
from fullrank.training.monitor import LOOKED, read_metrics

COMPLETE = "complete collapse"
COMMON = 100  # epochs for which a time is given
STANDARD_ERRORS = 2  # by which a kNN accuracy has to be above that of the untrained network to count as above
MEASURED = ("knn", "untrained", "Y_rank", "Z_rank", "seconds", "peak_memory")  # values of a run that are written out


@dataclass(frozen=True)
class Outcome:
    """Runs of the same settings.

    Attributes:
        runs: folders, one a seed.
        values: means over seeds by the names in `MEASURED` and others, and under `NAME_std` their standard deviations
            where there are several.
        verdicts: of Y and of Z: that of most runs.
        agreed: of how many of them.
        scores: means of what evaluations gave, likewise with their standard deviations, by `judge_key`.
        queries: pictures that the kNN accuracy counts.
        reason: what the verdict of Z says of the first run.
    """

    runs: tuple[str, ...]
    values: Mapping[str, float]
    verdicts: Mapping[str, str]
    agreed: Mapping[str, int]
    scores: Mapping[str, Mapping[str, float]]
    queries: int
    reason: str

    @property
    def seeds(self) -> int:
        """How many runs."""
        return len(self.runs)

    def measured(self, name: str, digits: int = 1) -> str:
        """A value with its spread."""
        return score(self.values, name, digits) if name in self.values else MISSING

    def verdict(self, name: str) -> str:
        """Of Y or Z in words, with how many runs it was where not all."""
        words = self.verdicts.get(name, MISSING)
        agreed = self.agreed.get(name, self.seeds)
        return words if agreed == self.seeds else f"{words} ({agreed} of {self.seeds})"

    @property
    def gained(self) -> bool | None:
        """Whether Y classifies better than that of the untrained network, beyond chance; None without labels."""
        if "knn" not in self.values:
            return None
        share = self.values["untrained"] / 100
        error = 100 * math.sqrt(max(share * (1 - share), 1e-4) * 2 / max(1, self.queries * self.seeds))
        return self.values["knn"] > self.values["untrained"] + STANDARD_ERRORS * error

    @property
    def collapsed(self) -> bool:
        """Whether Y or Z is one point."""
        return COMPLETE in self.verdicts.values()

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "runs": list(self.runs),
            **self.values,
            **{f"verdict_{name}": self.verdict(name) for name in self.verdicts},
            "gained": self.gained,
            "scores": {key: dict(scores) for key, scores in self.scores.items()},
        }


def outcome_of(folders: Sequence[Path]) -> Outcome:
    """What finished runs of the same settings gave."""
    summaries = [Run(folder).summary for folder in folders]
    ends = [last_measures(folder) for folder in folders]
    values = mean_of([values_of(one) | end for one, end in zip(summaries, ends, strict=True)], SPREAD)
    verdicts, agreed = {}, {}
    for name in summaries[0].get("verdict", {}):
        words, count = Counter(each["verdict"][name]["verdict"] for each in summaries).most_common(1)[0]
        verdicts[name], agreed[name] = words, count
    known = [judged(folder) for folder in folders]
    keys = [key for key in known[0] if all(key in each for each in known)]
    scores = {key: mean_of([each[key]["scores"] for each in known], SPREAD) for key in keys}
    queries = min((each["knn"]["queries"] for each in summaries if "knn" in each), default=0)
    reason = summaries[0].get("verdict", {}).get("Z", {}).get("reason", "")
    return Outcome(tuple(map(str, folders)), values, verdicts, agreed, scores, queries, reason)


def values_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run."""
    knn = summary.get("knn") or {}
    found = {"knn": knn.get("trained"), "untrained": knn.get("untrained")}
    for name, verdict in summary.get("verdict", {}).items():
        found[f"{name}_rank"] = verdict.get("measures", {}).get("effective_rank")
    found["steps"] = summary.get("steps")
    seconds, epochs = summary["seconds"], summary["epochs"]
    found |= {"seconds": seconds, "epochs": epochs, "hours_per_100_epochs": COMMON * seconds / max(epochs, 1e-9) / 3600}
    found |= {"images_per_second": summary["images_per_second"]}
    if summary.get("peak_memory"):
        found["peak_memory"] = summary["peak_memory"] / 2**30
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def score_of(cell: Cell, judge: Mapping[str, Any] | None, outcome: Outcome) -> tuple[float, float | None] | None:
    """The number of a cell and its standard deviation over seeds; None where there is none."""
    values = outcome.values
    if cell.column.score not in values:
        values = outcome.scores.get(judge_key(judge), {}) if judge is not None else {}
    if cell.column.score not in values:
        return None
    return values[cell.column.score], values.get(f"{cell.column.score}{SPREAD}")


def agreement(cell: Cell, outcome: Outcome) -> tuple[bool | None, str]:
    """Whether runs agree with what was published of a cell in kind, collapse or not, and where they differ how.

    None where nothing was published, or kNN says something else than the verdict.
    """
    if cell.published is None:
        return None, ""
    wanted = cell.published == COLLAPSE
    gained = outcome.gained
    after = f" after {outcome.values['steps']:,.0f} steps" if "steps" in outcome.values else ""
    why = f"; Z{after}: {outcome.reason}" if outcome.reason else ""
    by_verdict = "a complete collapse" if outcome.collapsed else "no complete collapse"
    by_knn = "kNN above the untrained network" if gained else "kNN not above the untrained network"
    if gained is None:
        return outcome.collapsed == wanted, "" if outcome.collapsed == wanted else by_verdict
    if outcome.collapsed == wanted and gained != wanted:
        return True, ""
    if outcome.collapsed != wanted and gained == wanted:
        return False, f"{by_verdict}, {by_knn}{why}"
    return None, f"{by_verdict}, but {by_knn}{why}"


def course_of(folder: Path) -> list[dict[str, float]]:
    """The live measures of a run, one row each time that Y and Z were looked at."""
    rows = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    return [row for row in rows if LOOKED in row]


def last_measures(folder: Path) -> dict[str, float]:
    """The last live measures of a run, such as Y_std."""
    rows = course_of(folder)
    return {name: value for name, value in (rows[-1] if rows else {}).items() if name.startswith(("Y_", "Z_"))}
