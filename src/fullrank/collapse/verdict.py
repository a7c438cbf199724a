"""The verdict in plain words: healthy, dimensional collapse or complete collapse, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.collapse.evidence import Evidence
from fullrank.collapse.measures import to_sphere
from fullrank.collapse.remarks import remarks
from fullrank.collapse.remedies import remedy
from fullrank.collapse.rules import SEVERITY, Name, judge
from fullrank.collapse.statistics import PairedStatistics, Statistics, as_vectors
from fullrank.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """What is wrong with an embedding, if anything."""

    verdict: Name
    reason: str  # one sentence with the numbers behind the verdict
    remedy: str  # what to change
    measures: dict[str, float]
    remarks: list[str] = field(default_factory=list)  # what is worth knowing and changes no verdict
    name: str = "Z"

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary of strings, numbers and lists, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        listed = "".join(f"\n- {remark}" for remark in self.remarks)
        return f"{self.name}: {self.verdict}. {self.reason} {self.remedy}{listed}"


def diagnose(
    vectors: Tensor | np.ndarray | Statistics | PairedStatistics,
    paired: Tensor | np.ndarray | None = None,
    *,
    name: str = "Z",
    target_std: float | int | None = None,
    on_sphere: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Verdict:
    """Judge n x d vectors: has the embedding collapsed, why, and what to change.

    Args:
        vectors: one vector a row; or `Statistics` gathered batch by batch; or `PairedStatistics` of two views.
        paired: the other view (or the other branch) of the same samples, row by row. Both are judged, the worse
            decides, and the remarks say whether the views agree.
        name: what the sentences call the vectors.
        target_std: the standard deviation that the loss asks of every dimension (VICReg: 1), where the scale means
            something. An embedding that shrinks to zero as a whole can keep a perfect shape: without this number it
            cannot be told from one that is small by choice, and the verdict is the same at every scale.
        on_sphere: whether the loss sees directions only (cosine similarities): vectors are then judged at length 1, and
            have collapsed where nearly all point the same way.
        settings: the settings of the training run, for a remedy that names them (`variance`, `covariance`, ...).

    Raises:
        InputError: not a finite n x d array, fewer than two vectors, or views of different shapes.
    """
    if on_sphere:
        vectors, paired = _at_length_one(vectors, name), None if paired is None else _at_length_one(paired, name)
    pairs, scale = _paired(vectors, paired, name), (target_std, on_sphere)
    if pairs:
        views = [Evidence(f"{name}, first view", pairs.first, *scale, pairs)]
        views.append(Evidence(f"{name}, second view", pairs.second, *scale))
    else:
        views = [Evidence(name, Statistics.of(vectors, name), *scale)]  # type: ignore[arg-type]
    return _verdict(views, name, settings or {})


def _at_length_one(vectors: Any, name: str) -> Tensor:
    if isinstance(vectors, Statistics | PairedStatistics):
        raise InputError(
            f"{name}: statistics given, which cannot be scaled to length 1: scale the vectors, then gather"
        )
    return to_sphere(as_vectors(vectors, name))


def _paired(vectors: Any, paired: Any, name: str) -> PairedStatistics | None:
    if isinstance(vectors, PairedStatistics):
        return vectors
    if paired is None:
        return None
    if isinstance(vectors, Statistics) or isinstance(paired, Statistics):
        raise InputError(
            f"{name}: statistics of two views given apart, which do not tell the pairs: update a PairedStatistics"
        )
    return PairedStatistics.of(vectors, paired)


def _verdict(views: list[Evidence], name: str, settings: Mapping[str, Any]) -> Verdict:
    for view in views:
        if view.count < 2:
            raise InputError(
                f"{view.name}: {view.count} vectors given, at least 2 expected: collapse is in their spread"
            )
    findings = [judge(view) for view in views]
    worst = max(findings, key=lambda finding: SEVERITY.index(finding.verdict))
    same = all(finding.verdict == worst.verdict for finding in findings)
    alone = "" if same else f"{views[findings.index(worst)].name} alone: "  # only one of two views has collapsed
    measures = views[0].numbers
    for name_, value in views[1].numbers.items() if len(views) > 1 else ():
        measures[f"second_{name_}"] = value
    return Verdict(
        verdict=worst.verdict,
        reason=_sentence(alone + worst.reason),
        remedy=_sentence(remedy(worst.cause, settings, representation=name.startswith("Y"))),
        measures=measures,
        remarks=[text for view, found in zip(views, findings, strict=True) for text in remarks(view, found.verdict)],
        name=name,
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
