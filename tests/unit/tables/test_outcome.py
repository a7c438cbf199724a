"""What runs gave, put together over seeds and compared with what was published."""

import dataclasses
import json
import math
import statistics

import pytest

from fullrank.report.wording import with_spread
from fullrank.runs.diagnose import SILENT_PREDICTOR
from fullrank.tables.outcome import Outcome, agreement, outcome_of
from fullrank.tables.plan import TIMED
from fullrank.tables.talk import Cell, Column, Row

HEALTHY, FLAT, POINT = "healthy", "dimensional collapse", "complete collapse"


def outcome(knn=60.0, untrained=30.0, z=HEALTHY, y=HEALTHY, queries=2000, runs=("a",)):
    values = {"knn": knn, "untrained": untrained} if knn is not None else {}
    agreed = {"Y": len(runs), "Z": len(runs)}
    return Outcome(runs, values, {"Y": y, "Z": z}, agreed, {}, queries, "")


def test_a_difference_says_why():
    found = dataclasses.replace(outcome(), reason="95 % of the variance spreads over 60 directions.")
    assert agreement(cell("collapse"), found) == (
        False,
        "no complete collapse, kNN above the untrained network; Z: 95 % of the variance spreads over 60 directions.",
    )
    stuck = outcome(knn=29)
    stuck = dataclasses.replace(stuck, reason="It is healthy.", values={**stuck.values, "steps": 1992.0})
    assert agreement(cell(68.6), stuck) == (
        None,
        "no complete collapse, but kNN not above the untrained network; Z after 1,992 steps: It is healthy.",
    )


def cell(published, score="top1"):
    return Cell(Row("VICReg", {}), Column("Top-1", score=score), published, {})


@pytest.mark.parametrize(
    ("published", "found", "agrees", "words"),
    [
        (68.6, outcome(), True, ""),
        ("69.3 †", outcome(z=FLAT), True, ""),  # few directions are no collapse of the paper's kind
        ("collapse", outcome(knn=30.5, z=POINT), True, ""),
        ("collapse", outcome(knn=28, z=HEALTHY, y=POINT), True, ""),
        ("collapse", outcome(), False, "no complete collapse, kNN above the untrained network"),
        (68.6, outcome(knn=31, z=POINT), False, "a complete collapse, kNN not clearly above the untrained network"),
        ("collapse", outcome(z=POINT), None, "a complete collapse, but kNN above the untrained network"),
        (68.6, outcome(knn=29), None, "no complete collapse, but kNN not above the untrained network"),
        (68.6, outcome(knn=30.1), None, "no complete collapse, but kNN not clearly above the untrained network"),
        (68.6, outcome(knn=None), True, ""),
        ("collapse", outcome(knn=None), False, "no complete collapse"),
        (None, outcome(), None, ""),
    ],
)
def test_agreement_with_the_paper(published, found, agrees, words):
    assert agreement(cell(published), found) == (agrees, words)


@pytest.mark.parametrize("score", TIMED)
def test_time_and_memory_have_no_kind_to_agree_on(score):
    assert agreement(cell(9, score), outcome()) == (None, "")
    assert agreement(cell(9, score), outcome(z=POINT)) == (None, "")


@pytest.mark.parametrize(("runs", "queries"), [(1, 2000), (3, 2000), (1, 200)])
def test_above_the_untrained_network_is_beyond_two_standard_errors(runs, queries):
    error = 100 * math.sqrt(0.3 * 0.7 * 2 / queries)  # of a difference of two shares near 30 %, of the same pictures
    names = tuple("abc"[:runs])
    assert not outcome(30 + 1.9 * error, 30.0, queries=queries, runs=names).gained
    assert outcome(30 + 2.1 * error, 30.0, queries=queries, runs=names).gained


def write_run(folder, knn, verdict, rank, top1, std, reason="because", **said):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("method: vicreg\n")
    summary = {
        "verdict": {"Z": {"verdict": verdict, "reason": reason, "measures": {"effective_rank": rank}}},
        "knn": {"trained": knn, "untrained": 25.0, "queries": 400},
        **{"images": 900, "seconds": 36.0, "epochs": 2.0, "images_per_second": 100.0, "peak_memory": 2**30},
        **{"finished": True, **said},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "judged.json").write_text(json.dumps({'{"protocol": "linear"}': {"scores": {"top1": top1}}}))
    (folder / "metrics.csv").write_text(
        f"step,epoch,loss,Z_std,Z_correlation\n1,0.5,3,0.9,0.1\n2,1,2,,\n4,2,1,{std},0.2\n"
    )
    return folder


def test_several_seeds_are_means_with_spread(tmp_path):
    tops = [70.0, 72.0, 77.0]
    runs = [
        write_run(tmp_path / str(n), 50 + n, POINT if n == 1 else FLAT, 10 + n, top, 0.5 + n)
        for n, top in enumerate(tops)
    ]
    found = outcome_of(runs)
    assert found.seeds == 3
    assert found.values["knn"] == 51
    assert found.values["knn_std"] == 1
    assert found.values["Z_rank"] == 11
    assert found.values["hours_per_100_epochs"] == 0.25  # 900 pictures a pass at 100 a second, start and end aside
    assert found.values["peak_memory"] == pytest.approx(1.073741824)  # GB, as in the paper
    assert found.memory == "1.1 ± 0.0 GB"
    assert found.values["Z_std"] == 1.5  # of the last looks
    assert found.verdict("Z") == "dimensional collapse (2 of 3)"
    assert found.reason == "because"
    scores = found.scores['{"protocol": "linear"}']
    assert scores["top1"] == statistics.mean(tops)
    assert scores["top1_std"] == pytest.approx(statistics.stdev(tops))
    assert with_spread(scores["top1"], scores["top1_std"]) == "73.0 ± 3.6"


@pytest.mark.parametrize("verdicts", [(POINT, HEALTHY, HEALTHY), (POINT, POINT, HEALTHY)])
def test_the_reason_is_one_of_the_majority(tmp_path, verdicts):
    runs = [
        write_run(tmp_path / str(n), 20, verdict, 10, 70, 0.5, f"{verdict} of {n}")
        for n, verdict in enumerate(verdicts)
    ]
    found = outcome_of(runs[::-1])
    assert found.reason == {HEALTHY: "healthy of 2", POINT: "complete collapse of 1"}[found.verdicts["Z"]]
    assert found.verdict("Z") == f"{max(verdicts, key=verdicts.count)} (2 of 3)"
    assert found.collapsed is (verdicts.count(POINT) == 2)


@pytest.mark.parametrize("knn", [60, 20])
@pytest.mark.parametrize("verdicts", [(POINT, HEALTHY), (HEALTHY, POINT), (HEALTHY, FLAT, POINT)])
def test_as_many_collapses_as_anything_else_agree_in_part_whatever_the_order(tmp_path, verdicts, knn):
    runs = [
        write_run(tmp_path / str(n), knn, verdict, 10, 70, 0.5, f"{verdict}.") for n, verdict in enumerate(verdicts)
    ]
    found = outcome_of(runs)
    assert found.verdict("Z") == f"complete collapse (1 of {len(runs)})"
    assert found.collapsed is None
    above = "above" if knn == 60 else "not above"
    words = f"a complete collapse in 1 of {len(runs)} runs, kNN {above} the untrained network; Z: complete collapse."
    for published in (68.6, "collapse"):
        assert agreement(cell(published), found) == (None, words)
    assert agreement(cell(None), found) == (None, "")


def test_one_seed_has_no_spread(tmp_path):
    found = outcome_of([write_run(tmp_path / "0", 50, HEALTHY, 10, 70, 0.5)])
    assert "knn_std" not in found.values
    assert found.verdict("Z") == HEALTHY
    assert found.measured("knn") == "50.0"
    assert found.measured("Y_rank") == "–"


def test_a_silent_predictor_belongs_to_the_reason(tmp_path):
    write_run(tmp_path / "a", 30, HEALTHY, 1.0, 40, 0.9, reason="It spreads.")
    path = tmp_path / "a/summary.json"
    summary = json.loads(path.read_text())
    reasons = {0.001: f"It spreads, but {SILENT_PREDICTOR}: agreement teaches nothing.", 0.3: "It spreads."}
    for share, reason in reasons.items():
        summary["verdict"]["Z"]["measures"]["predicted_share"] = share
        path.write_text(json.dumps(summary))
        assert outcome_of([tmp_path / "a"]).reason == reason
        assert outcome_of([tmp_path / "a"]).values["predicted_share"] == share
