"""What runs gave: of one or of several seeds, its accuracy, the state of its embedding, its time and its memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.evaluation.repeated import SPREAD, mean_of
from fullrank.report.wording import MISSING, SEVERITY, counted, score
from fullrank.runs.diagnose import SILENT_PREDICTOR, is_silent
from fullrank.runs.folder import METRICS, Run
from fullrank.tables.plan import TIMED
from fullrank.tables.talk import COLLAPSE, Cell
from fullrank.tables.work import judge_key, judged
from fullrank.training.monitor import LOOKED, read_metrics

COMPLETE = "complete collapse"
COMMON = 100  # epochs for which a time is given
GIGABYTE = 1e9  # bytes: the unit of the paper
STANDARD_ERRORS = 2  # by which a kNN accuracy has to be above that of the untrained network to count as above
KNN = "knn"  # the column of its curve
# Values of a run that are written out.
MEASURED = ("knn", "untrained", "Y_rank", "Z_rank", "predicted_share", "seconds", "peak_memory")


@dataclass(frozen=True)
class Outcome:
    """Runs of the same settings.

    Attributes:
        runs: folders, one a seed.
        values: means over seeds by the names in `MEASURED` and others, and under `NAME_std` their standard deviations
            where there are several.
        verdicts: of Y and of Z: that of most runs, the gravest where several are as frequent.
        agreed: of how many of them.
        scores: means of what evaluations gave, likewise with their standard deviations, by `judge_key`.
        queries: pictures that the kNN accuracy counts.
        reason: what the verdict of Z says of the first run that has it.
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

    @property
    def memory(self) -> str:
        """The peak."""
        return f"{self.measured('peak_memory')} GB" if "peak_memory" in self.values else MISSING

    def verdict(self, name: str) -> str:
        """Of Y or Z in words, with how many runs it was where not all."""
        words = self.verdicts.get(name, MISSING)
        agreed = self.agreed.get(name, self.seeds)
        return words if agreed == self.seeds else f"{words} ({agreed} of {self.seeds})"

    @property
    def gained(self) -> bool | None:
        """Whether Y classifies better than that of the untrained network; None without labels.

        Better by more than the chance in which queries were drawn; what another seed would change is not counted, and
        seeds do not lessen it: where few pictures are held back, all ask the same ones.
        """
        if "knn" not in self.values:
            return None
        share = self.values["untrained"] / 100
        error = 100 * math.sqrt(max(share * (1 - share), 1e-4) * 2 / max(1, self.queries))
        return self.values["knn"] > self.values["untrained"] + STANDARD_ERRORS * error

    @property
    def collapsing(self) -> int:
        """Runs in which Y, or in which Z, is one point; 0 where another verdict is more frequent."""
        return max(
            (self.agreed[name] for name, verdict in self.verdicts.items() if verdict == COMPLETE),
            default=0,
        )

    @property
    def collapsed(self) -> bool | None:
        """Whether Y or Z is one point; None where more runs say so than anything else, but not more than half."""
        return None if 0 < self.collapsing <= self.seeds / 2 else self.collapsing > 0

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
        counts = Counter(each["verdict"][name]["verdict"] for each in summaries)
        agreed[name] = max(counts.values())
        verdicts[name] = max((words for words in counts if counts[words] == agreed[name]), key=SEVERITY.index)
    known = [judged(folder) for folder in folders]
    keys = [key for key in known[0] if all(key in each for each in known)]
    scores = {key: mean_of([each[key]["scores"] for each in known], SPREAD) for key in keys}
    queries = min((each["knn"]["queries"] for each in summaries if "knn" in each), default=0)
    of_z = [each["verdict"]["Z"] for each in summaries if "Z" in verdicts]
    first: dict[str, Any] = next((each for each in of_z if each["verdict"] == verdicts["Z"]), {})
    reason = first.get("reason", "")
    if is_silent(first.get("measures", {})):
        reason = f"{reason.rstrip('.')}, but {SILENT_PREDICTOR}: agreement teaches nothing."
    return Outcome(tuple(map(str, folders)), values, verdicts, agreed, scores, queries, reason)


def values_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run."""
    knn = summary.get("knn") or {}
    found = {"knn": knn.get("trained"), "untrained": knn.get("untrained")}
    for name, verdict in summary.get("verdict", {}).items():
        found[f"{name}_rank"] = verdict.get("measures", {}).get("effective_rank")
    found["predicted_share"] = summary.get("verdict", {}).get("Z", {}).get("measures", {}).get("predicted_share")
    found["steps"] = summary.get("steps")
    found |= {name: summary[name] for name in ("seconds", "epochs", "images_per_second")}
    if summary["images_per_second"]:
        found["hours_per_100_epochs"] = COMMON * summary["images"] / summary["images_per_second"] / 3600
    if summary.get("peak_memory"):
        found["peak_memory"] = summary["peak_memory"] / GIGABYTE
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def score_of(cell: Cell, judge: Mapping[str, Any] | None, outcome: Outcome) -> tuple[float, float | None] | None:
    """The number of a cell and its standard deviation over seeds; None where there is none.

    Where pictures have several labels, the mean average precision stands for top-1.
    """
    values, score = outcome.values, cell.column.score
    if score not in values:
        values = outcome.scores.get(judge_key(judge), {}) if judge is not None else {}
        score = "map" if score == "top1" and score not in values else score
    if score not in values:
        return None
    return values[score], values.get(f"{score}{SPREAD}")


def agreement(cell: Cell, outcome: Outcome) -> tuple[bool | None, str]:
    """Whether runs agree with what was published of a cell in kind, collapse or not, and where they differ how.

    None where nothing was published or the number is one of time or memory, which has no such kind, and, with words,
    where kNN says something else than the verdict, or no more than half of the runs have the commonest verdict.
    """
    if cell.published is None or cell.column.score in TIMED:
        return None, ""
    wanted = cell.published == COLLAPSE
    collapsed, gained = outcome.collapsed, outcome.gained
    after = f" after {outcome.values['steps']:,.0f} steps" if "steps" in outcome.values else ""
    why = f"; Z{after}: {outcome.reason}" if outcome.reason else ""
    by_verdict = "a complete collapse" if collapsed else "no complete collapse"
    risen = gained is False and outcome.values["knn"] > outcome.values["untrained"]
    by_knn = f"kNN {'' if gained else 'not clearly ' if risen else 'not '}above the untrained network"
    if collapsed is None:
        split = f"a complete collapse in {outcome.collapsing} of {counted(outcome.seeds, 'runs')}"
        return None, f"{split}{'' if gained is None else f', {by_knn}'}{why}"
    if gained is None:
        return collapsed == wanted, "" if collapsed == wanted else by_verdict
    if collapsed == wanted and gained != wanted:
        return True, ""
    if collapsed != wanted and gained == wanted:
        return False, f"{by_verdict}, {by_knn}{why}"
    return None, f"{by_verdict}, but {by_knn}{why}"


def course_of(folder: Path) -> list[dict[str, float]]:
    """The live measures of a run, one row each time that Y and Z were looked at or that kNN was measured."""
    rows = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    return [row for row in rows if LOOKED in row or KNN in row]


def last_measures(folder: Path) -> dict[str, float]:
    """The last live measures of a run, such as Y_std."""
    rows = [row for row in course_of(folder) if LOOKED in row]
    return {name: value for name, value in (rows[-1] if rows else {}).items() if name.startswith(("Y_", "Z_"))}
