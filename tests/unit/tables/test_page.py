"""The filled table and its page, from runs as they lie on the disk."""

import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

from fullrank.tables.expand import Judging, expand
from fullrank.tables.filled import fill
from fullrank.tables.line import in_one_unit
from fullrank.tables.page import bars_of, build_page, curves_of
from fullrank.tables.plan import Plan
from fullrank.tables.talk import names, open_table
from fullrank.tables.work import run_folder
from tests.unit.tables.test_outcome import FLAT, HEALTHY, POINT, write_run

MACHINE = {"hardware": {"device": "a CPU", "threads": 1}, "versions": {"torch": "2"}, "date": "2026-01-02"}


def table_of(folder, name, results, seeds=1, done=None, **given):
    """A table whose runs have given `results`: (kNN, verdict of Z, top-1) by name; of `done` seeds, if not of all."""
    jobs = tuple(expand(open_table(name), {"data": "shapes"}, 32, Judging())[0])
    plan = Plan(name, {"data": "shapes"}, epochs=2.0, seeds=seeds, jobs=jobs)
    for job in jobs:
        for seed in range(seeds if done is None else done):
            if job.name in results:
                knn, verdict, top1 = results[job.name]
                run = write_run(run_folder(folder, job, seed), knn + seed, verdict, 12, top1, 0.4, **given)
                summary = json.loads((run / "summary.json").read_text())
                said = {"data": "shapes", "images": 8000, "backbone": "test_resnet"} | MACHINE
                said["settings"] = {"precision": "32-true"}
                (run / "summary.json").write_text(json.dumps(summary | said))
    return fill(plan, folder, range(seeds), {"vicreg-no-reg-seed0": "it <broke> | badly"})


def shown_at(width, rendered):
    """What stands on a terminal."""
    console = Console(width=width, file=io.StringIO(), force_terminal=False, soft_wrap=True)
    console.print(rendered)
    return console.file.getvalue()


RESULTS = {
    "byol-no-reg": (60.0, HEALTHY, 70.0),
    "simsiam-sg-no-reg": (24.0, POINT, 10.0),  # published: collapse
    "vicreg-bn-var-cov-reg": (24.0, POINT, 12.0),  # published: 68.6
    "vicreg-bn-var-reg": (50.0, FLAT, 61.0),
}


@pytest.fixture
def filled(tmp_path):
    return table_of(tmp_path, "regularization", RESULTS)


def line_of(filled, name):
    return next(line for line in filled.lines if line.name == name)


def test_every_cell_has_its_line(filled):
    assert len(filled.lines) == 24
    collapsed = line_of(filled, "SimSiam, SG, No Reg")
    assert (collapsed.agrees, collapsed.own_words, collapsed.verdict("Z")) == (True, "10.0", POINT)
    assert line_of(filled, "BYOL, ME SG PR BN, No Reg").agreement == "yes"
    assert line_of(filled, "VICReg, BN, Var Reg").agreement == "yes"
    assert line_of(filled, "VICReg, BN, Var/Cov Reg").agreement == "no"
    missing = line_of(filled, "VICReg, PR, Var Reg")
    assert (missing.own_words, missing.agreement, missing.verdict("Z")) == ("–", "–", "–")
    assert line_of(filled, "VICReg, No Reg").own_words == "failed"
    assert filled.in_one_line == "3 of 4 cells agree with the paper on collapse or none"
    words = "a complete collapse, kNN not above the untrained network; Z: because (paper: no collapse)"
    assert filled.differences == [f"VICReg, BN, Var/Cov Reg: {words}"]


def test_cells_that_agree_in_part_are_counted(tmp_path):
    filled = table_of(tmp_path, "regularization", RESULTS | {"byol-no-reg": (24.0, HEALTHY, 30.0)})
    assert filled.in_one_line == "2 of 4 cells agree with the paper on collapse or none, 1 in part"


def test_settings_that_were_given_are_said(filled):
    assert "settings" not in filled.circumstances
    base = {"data": "shapes", "epochs": 2.0, "samples": 64, "precision": "auto", "workers": 3}
    base |= {"batch_size": 32, "recipe": "shapes"}
    again = dataclasses.replace(filled, plan=dataclasses.replace(filled.plan, base=base))
    assert again.circumstances["settings"] == "batch_size 32, recipe shapes"
    assert "| settings | batch_size 32, recipe shapes |" in again.markdown()


def test_markdown_has_as_many_cells_in_every_row(filled):
    lines = [line for line in filled.markdown().splitlines() if line.startswith("| ")]
    counts = [line.count("|") for line in lines]
    assert counts[:26] == [counts[0]] * 26  # head, rule, 24 rows
    assert "| BYOL | ✓ | ✓ | ✓ | ✓ | No Reg | 70.0 | 69.3 † | yes | 25.0 → 60.0 |" in filled.markdown()
    assert "vicreg-no-reg-seed0 failed: it <broke> | badly." in filled.markdown()
    assert "Var/Cov Reg" in filled.markdown()


@pytest.mark.parametrize(("name", "seeds"), [("regularization", 1), ("regularization", 3), ("coefficients", 1)])
def test_the_terminal_cuts_nothing_however_narrow_it_is(tmp_path, name, seeds):
    jobs, _ = expand(open_table(name), {"data": "shapes"}, 32, Judging())
    filled = table_of(tmp_path, name, {job.name: (60.0, FLAT, 70.0) for job in jobs}, seeds)
    shown = {}
    for width in (80, 200):
        shown[width] = shown_at(width, filled.render())
        assert "…" not in shown[width]
        for words in ("dimensional", "collapse", "70.0", "GB", "36 s", "yes", "no"):
            assert words in shown[width]
    assert "25.0 → 60.0" in shown[200] or "25.0 ± 0.0 → 61.0 ± 1.0" in shown[200]
    assert "25.0 → 60.0" not in shown[80]


def test_csv_has_numbers_in_full(filled):
    rows = list(csv.DictReader(filled.csv().splitlines()))
    assert len(rows) == 24
    assert rows[0]["ours"] == "70.0"
    assert rows[0]["settings"] == "method byol"
    assert {row["unit"] for row in rows} == {"%"}
    assert rows[0]["peak_memory"] == "1.073741824"
    assert [row["agrees"] for row in rows].count("no") == 1


def test_seeds_are_means_with_spread(tmp_path):
    filled = table_of(tmp_path, "regularization", {"byol-no-reg": (60.0, HEALTHY, 70.0)}, seeds=3)
    line = filled.lines[0]
    assert line.measured("knn") == "61.0 ± 1.0"
    assert line.own_words == "70.0 ± 0.0"
    assert "± is the standard deviation over seeds." in filled.markdown()
    assert filled.circumstances["seeds"] == "3, from 0 on"
    assert filled.circumstances["precision"] == "32-true"


def test_the_page_escapes_what_runs_say(filled):
    page = build_page(filled)
    assert "it &lt;broke&gt; | badly" in page
    assert "<broke>" not in page
    assert page.count('<td class="complete-collapse">') == 2
    assert (
        page.count('role="img"') == 3
    )  # a chart for each row of the slide that has runs, of the one measure they have
    assert "3 of 4 cells agree" in page


def all_of(name, seeds=1):
    """What every run of a table gave, alike."""
    return {job.name: (60.0, HEALTHY, 70.0) for job in expand(open_table(name), {"data": "shapes"}, 32, Judging())[0]}


def test_time_and_memory_are_not_judged(tmp_path):
    filled = table_of(tmp_path, "cost", all_of("cost"))
    assert filled.in_one_line == "5 of 5 cells agree with the paper on collapse or none"
    assert [line.agreement for line in filled.lines[:3]] == ["–", "–", "yes"]
    assert [line.own_words for line in filled.lines[:3]] == ["2.222 h", "1.074 GB", "70.0"]  # as images are 8000
    said = filled.markdown()
    assert "| 1.074 GB | 9.5 GB | – |" in said
    assert "36 s | 1.1 GB |" in said
    assert "at the median speed of a run's steps" in said
    assert "Agreement is not judged of time and memory." in said
    assert "GiB" not in said + build_page(filled)
    assert [row.ticks[1][2] for row in bars_of(filled)] == ["71.8", "75.3", "74.3", "73.2", "73.2"]


def test_a_run_that_fills_several_cells_counts_once(tmp_path):
    results = all_of("imagenet") | {"vicreg": (24.0, POINT, 12.0)}
    filled = table_of(tmp_path, "imagenet", results)
    assert filled.in_one_line == "14 of 15 runs agree with the paper on collapse or none"
    words = "a complete collapse, kNN not above the untrained network; Z: because (paper: no collapse)"
    assert filled.differences == [f"VICReg: {words}"]
    assert [name for name, _ in filled.settings] == [row.name for row in filled.table.rows]
    assert table_of(tmp_path / "seeds", "imagenet", results, seeds=2).in_one_line.startswith("14 of 15 runs of 2 seeds")

    rows = bars_of(filled)
    assert [row.name for row in rows] == [row.name for row in filled.table.rows]
    assert [text for _, _, text in rows[0].ticks] == ["25.0", "76.5"]  # linear top-1, not 1 % or top-5
    page = build_page(filled)
    assert "the paper&#39;s number in the column linear top-1" in page
    charts = [*curves_of(filled)]
    assert [(chart.title, len(chart.curves)) for chart in charts] == [
        ("Mean standard deviation of Z", count) for count in (7, 8)
    ]
    assert [curve.label for chart in charts for curve in chart.curves] == [row.name for row in filled.table.rows]


def test_a_bar_has_no_mark_where_the_paper_has_no_top1(tmp_path):
    filled = table_of(tmp_path, "multimodal", all_of("multimodal"))
    assert [len(row.ticks) for row in bars_of(filled)] == [1, 1, 1]
    page = build_page(filled)
    assert "the mark is the same network untrained." in page
    assert '<span class="bar-note">paper</span>' not in page
    assert '<span class="bar-note">paper</span>' in build_page(
        table_of(tmp_path / "other", "expander", all_of("expander"))
    )


def test_columns_that_are_runs_of_their_own_have_bars_of_their_own(filled):
    assert bars_of(filled)[0].name == "BYOL, ME SG PR BN, No Reg"
    assert len(bars_of(filled)) == 4


def test_of_how_many_runs_a_number_is(tmp_path):
    filled = table_of(tmp_path, "regularization", {"byol-no-reg": (60.0, HEALTHY, 70.0)}, seeds=3, done=1)
    assert filled.lines[0].own_words == "70.0 (1 of 3 runs)"
    assert "70.0 (1 of 3 runs)" in filled.markdown()
    assert build_page(filled).count("1 of 3 runs") == 2  # in the table, and on the bar
    assert "1 of 3" in shown_at(200, filled.render())
    assert filled.lines[1].own_words == "–"  # none yet
    cost = table_of(tmp_path / "cost", "cost", all_of("cost"), seeds=2, done=1)
    assert cost.lines[1].own_words == "1.074 GB (1 of 2 runs)"
    assert [line.paper for line in cost.lines[:3]] == ["9 h", "9.5 GB", "71.8"]


def test_what_the_columns_stand_for_is_said_below_the_table(filled):
    shown = shown_at(80, filled.render())
    for words in (
        "in part: ",
        "Y, Z: ",
        "kNN: ",
        "ours, paper: ",
        "time: of training alone",
        "SG: stop-gradient",
        "†: as on",
    ):
        assert words in shown
    for said in (shown, filled.markdown(), build_page(filled)):
        assert "what another seed would change is not in it" in said
    assert "†: as on the slide, which does not explain it." in filled.markdown()


def test_no_mark_is_explained_that_does_not_stand_there(tmp_path):
    assert "†" not in table_of(tmp_path, "expander", all_of("expander")).markdown()


def test_one_word_for_the_paper(filled):
    for said in (shown_at(200, filled.render()), filled.markdown(), build_page(filled)):
        assert "ublished" not in said.replace("than in the published one", "")
    assert "| ours | paper |" in filled.markdown()


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", ["imagenet", "regularization", "cost"])
def test_long_times_are_in_hours_and_fit(tmp_path, name, seeds):
    filled = table_of(tmp_path, name, all_of(name), seeds, seconds=36180.0)
    shown = {width: shown_at(width, filled.render()) for width in (80, 250)}
    assert "10.1 h" in shown[80]
    assert "10 h 3 min" in shown[250]
    assert "…" not in shown[80]
    assert max(len(line.rstrip()) for line in shown[80].splitlines()[1:30]) <= 80


@pytest.mark.parametrize(("seconds", "words"), [(36, "36 s"), (90, "90 s"), (271, "4.5 min"), (5401, "1.5 h")])
def test_times_in_one_unit(seconds, words):
    assert in_one_unit(seconds) == words


@pytest.mark.parametrize("name", names())
def test_published_tables_are_cut_nowhere(name):
    table = open_table(name)
    shown = shown_at(80, table.render())
    assert "…" not in shown + shown_at(50, table.render())
    assert all(row.name in shown for row in table.rows)
    lines = shown.splitlines()
    assert max(map(len, lines[1 : 5 + len(table.rows)])) <= 80
    words = {word for column in table.columns for word in column.name.split()}
    assert words <= set(" ".join(lines[:8]).split())  # headings are whole


def test_figures_draw_their_curves(tmp_path):
    filled = table_of(tmp_path, "collapse-std", {"byol-no-reg": (60.0, HEALTHY, 70.0), "byol-var-reg": (60, FLAT, 70)})
    page = build_page(filled)
    assert page.count('role="img"') == 1
    assert "BYOL: Mean standard deviation of Z" in page
    assert filled.in_one_line == ""  # nothing was published
    in_words = filled.markdown()
    assert "| row | column | linear | kNN | Y | Z | Y std | Z std | rank Z | time | memory |" in in_words
    console = Console(width=80, file=io.StringIO())
    console.print(filled.render())
    for words in (page, in_words, console.file.getvalue()):
        assert "agree" not in words
        assert "Z std" in words
        assert "top-1 of a probe" in words


@pytest.mark.parametrize(("steps", "too_short"), [(99, True), (100, False)])
def test_runs_of_a_few_steps_tell_nothing(tmp_path, steps, too_short):
    filled = table_of(tmp_path, "normalization", all_of("normalization"), steps=steps)
    assert all(line.outcome.values["steps"] == steps for line in filled.lines)
    assert filled.too_short is too_short
    assert ("fewer than 100 steps" in filled.markdown()) is too_short


def test_where_there_is_little_room_the_name_of_a_row_is_enough(tmp_path):
    filled = table_of(tmp_path, "normalization", {})
    for width, shown in ((80, False), (200, True)):
        console = Console(width=width, file=io.StringIO())
        console.print(filled.render())
        [row] = [line for line in console.file.getvalue().splitlines() if line.strip().startswith("none, l2")]
        assert ("Embedding l2" in row) is shown


def test_plain_values_can_be_written(filled):
    said = json.loads(json.dumps(filled.to_dict()))
    assert said["cells"][0]["outcome"]["knn"] == 60
    assert said["cells"][0]["published"] == "69.3 †"
    assert said["failed"] == {"vicreg-no-reg-seed0": "it <broke> | badly"}
