"""The filled table and its page, from runs as they lie on the disk."""

import csv
import io
import json

import pytest
from rich.console import Console

from fullrank.tables.expand import expand
from fullrank.tables.filled import fill
from fullrank.tables.page import build_page
from fullrank.tables.plan import Plan
from fullrank.tables.talk import open_table
from fullrank.tables.work import run_folder
from tests.unit.tables.test_outcome import FLAT, HEALTHY, POINT, write_run

MACHINE = {"hardware": {"device": "a CPU", "threads": 1}, "versions": {"torch": "2"}, "date": "2026-01-02"}


def table_of(folder, name, results, seeds=1):
    """A table whose runs have given `results`: (kNN, verdict of Z, top-1) by name."""
    jobs = tuple(expand(open_table(name), {"data": "shapes"}, 32, {})[0])
    plan = Plan(name, {"data": "shapes"}, {}, None, 2.0, None, 0, seeds, jobs, 1)
    for job in jobs:
        for seed in range(seeds):
            if job.name in results:
                knn, verdict, top1 = results[job.name]
                run = write_run(run_folder(folder, job, seed), knn + seed, verdict, 12, top1, 0.4)
                summary = json.loads((run / "summary.json").read_text())
                said = {"data": "shapes", "images": 8000, "backbone": "test_resnet"} | MACHINE
                said["settings"] = {"precision": "32-true"}
                (run / "summary.json").write_text(json.dumps(summary | said))
    return fill(plan, folder, range(seeds), {"vicreg-no-reg-seed0": "it <broke> | badly"})


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
    words = "a complete collapse, kNN not above the untrained network; Z: because (published: no collapse)"
    assert filled.differences == [f"VICReg, BN, Var/Cov Reg: {words}"]


def test_markdown_has_as_many_cells_in_every_row(filled):
    lines = [line for line in filled.markdown().splitlines() if line.startswith("| ")]
    counts = [line.count("|") for line in lines]
    assert counts[:26] == [counts[0]] * 26  # head, rule, 24 rows
    assert "| BYOL | ✓ | ✓ | ✓ | ✓ | No Reg | 70.0 | 69.3 † | yes | 25.0 → 60.0 |" in filled.markdown()
    assert "vicreg-no-reg-seed0 failed: it <broke> | badly." in filled.markdown()
    assert "Var/Cov Reg" in filled.markdown()


@pytest.mark.parametrize(("name", "seeds"), [("regularization", 1), ("regularization", 3), ("coefficients", 1)])
def test_the_terminal_cuts_nothing_however_narrow_it_is(tmp_path, name, seeds):
    jobs, _ = expand(open_table(name), {"data": "shapes"}, 32, {})
    filled = table_of(tmp_path, name, {job.name: (60.0, FLAT, 70.0) for job in jobs}, seeds)
    shown = {}
    for width in (80, 200):
        console = Console(width=width, file=io.StringIO(), force_terminal=False)
        console.print(filled.render())
        shown[width] = console.file.getvalue()
        assert "…" not in shown[width]
        for words in ("dimensional", "collapse", "70.0", "GiB", "36 s", "yes", "no"):
            assert words in shown[width]
    assert "25.0 → 60.0" in shown[200] or "25.0 ± 0.0 → 61.0 ± 1.0" in shown[200]
    assert "25.0 → 60.0" not in shown[80]


def test_csv_has_numbers_in_full(filled):
    rows = list(csv.DictReader(filled.csv().splitlines()))
    assert len(rows) == 24
    assert rows[0]["ours"] == "70.0"
    assert rows[0]["settings"] == "method byol"
    assert rows[0]["peak_memory"] == "1.0"
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


def test_figures_draw_their_curves(tmp_path):
    filled = table_of(tmp_path, "collapse-std", {"byol-no-reg": (60.0, HEALTHY, 70.0), "byol-var-reg": (60, FLAT, 70)})
    page = build_page(filled)
    assert page.count('role="img"') == 1
    assert "BYOL: Mean standard deviation of Z" in page
    assert filled.in_one_line == ""  # nothing was published


def test_plain_values_can_be_written(filled):
    said = json.loads(json.dumps(filled.to_dict()))
    assert said["cells"][0]["outcome"]["knn"] == 60
    assert said["cells"][0]["published"] == "69.3 †"
    assert said["failed"] == {"vicreg-no-reg-seed0": "it <broke> | badly"}
