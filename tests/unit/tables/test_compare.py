"""Runs side by side, as they lie on the disk."""

import csv
import io
import shutil
import zlib

import pytest
import yaml
from rich.console import Console

from fullrank.errors import InputError
from fullrank.runs.settings import resolve, stored
from fullrank.tables.compare import compare_runs
from tests.unit.tables.test_outcome import HEALTHY, write_run


def run_in(folder, **said):
    """A finished run, with settings that no run in another folder has."""
    run = write_run(folder, 60.0, HEALTHY, 12, 70.0, 0.4, **said)
    settings = stored(resolve({"data": "shapes", "samples": zlib.crc32(bytes(folder))}))
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return run


def test_headings_are_shown_as_they_are(tmp_path):
    linear = {"protocol": "linear", "data": "shapes[train]", "scores": {"top1": 50.0}}
    found = compare_runs([run_in(tmp_path / "a", evaluations=[linear]), run_in(tmp_path / "ab")], None)
    console = Console(width=300, file=io.StringIO())
    console.print(found.render())
    assert "linear top-1 on shapes[train]" in console.file.getvalue()


def test_equal_names_are_lengthened_until_they_differ(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("x/a/vicreg", "xx/b/vicreg", "xxx/b/vicreg", "byol")]
    found = compare_runs(runs, None)
    assert found.names == ("a/vicreg", "xx/b/vicreg", "xxx/b/vicreg", "byol")


def test_narrow_terminals_get_narrow_tables(tmp_path):
    scores = {"protocol": "linear", "data": "shapes[train]", "scores": {"top1": 51.25}}
    runs = [run_in(tmp_path / name, evaluations=[scores]) for name in ("with-λ1-μ10", "without-λ1-μ10")]
    found = compare_runs(runs, None)
    console = Console(width=80, file=io.StringIO())
    console.print(found.render())
    lines = console.file.getvalue().splitlines()
    [first, own] = [line for line in lines if "with-λ1-μ10" in line and "without" not in line]
    assert first.split() == ["with-λ1-μ10", "51.2", "25.0", "→", "–", "–", "36", "s"]
    assert lines[lines.index(first) + 1].split() == ["60.0", "healthy", "12.0", "1.1", "GB"]
    assert own.rstrip() == f"with-λ1-μ10: samples {zlib.crc32(bytes(tmp_path / 'with-λ1-μ10'))}"


def test_lines_say_for_how_many_runs_they_stand(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("a", "ab", "abc")]
    for seed, run in enumerate(runs[:2]):
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {"samples": 8, "seed": seed}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert [row[0] for row in compare_runs(runs, None).rows] == ["a (2 seeds)", "abc"]


def test_views_are_said_by_what_differs_between_them(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("a", "ab", "abc")]
    plain = {"scale": [0.2, 1.0], "flip": 0.5}
    for run, views in zip(runs, ([plain, plain], [plain, plain | {"blur": 1.0}], None), strict=True):
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {"samples": 8, "views": views}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    found = compare_runs(runs, None)
    assert found.headings[-2:] == ["memory", "views"]
    assert [row[-1] for row in found.rows] == ["2 of as the others", "as the others; blur 1.0", "–"]


def test_settings_that_say_nothing_are_missing(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("a", "ab")]
    for run, regularize in zip(runs, ({"variance": 0.5}, {}), strict=True):
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {"samples": 0}
        (run / "config.yaml").write_text(yaml.safe_dump(settings | {"regularize": regularize, "seed": 0}))
    found = compare_runs(runs, None)
    assert [row[-1] for row in found.rows] == ['{"variance": 0.5}', "–"]


def test_numbers_of_settings_are_short(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("a", "ab")]
    for run, warm_up in zip(runs, (2 / 9, 1.0), strict=True):
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {"samples": 0, "warmup_epochs": warm_up}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert [row[-1] for row in compare_runs(runs, None).rows] == ["0.222222", "1.0"]


def test_curves_are_written_in_full(tmp_path):
    runs = [run_in(tmp_path / "a"), run_in(tmp_path / "ab")]
    (runs[1] / "metrics.csv").write_text("step,epoch,Z_std,knn\n2,1,,30\n3,1.5,0.1234567890123,40\n4,2,,\n")
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(config | {"seed": 7}))
    compare_runs(runs, str(tmp_path / "side"))
    assert (tmp_path / "side/curves.csv").read_text().splitlines() == [
        "run,seed,step,epoch,loss,Z_std,Z_correlation,knn",
        "a,0,1,0.5,3.0,0.9,0.1,",
        "a,0,4,2.0,1.0,0.4,0.2,",
        "ab,7,2,1.0,,,,30.0",
        "ab,7,3,1.5,,0.1234567890123,,40.0",
    ]


def test_the_csv_has_settings_and_scores_as_the_table_has_them(tmp_path):
    runs = []
    for name, seed, samples, regularize, top1 in (
        *[("a", 0, 8, {}, 50.0), ("a1", 1, 8, {}, 52.0)],
        ("b", 0, 9, {"variance": 0.5}, 61.5),
    ):
        linear = {"protocol": "linear", "data": "shapes", "scores": {"top1": top1}}
        run = run_in(tmp_path / name, evaluations=[linear])
        own = {"seed": seed, "samples": samples, "regularize": regularize}
        settings = yaml.safe_load((run / "config.yaml").read_text()) | own
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        runs.append(run)
    one, other = csv.DictReader(io.StringIO(compare_runs(runs, None).csv()))
    assert (one["samples"], one["regularize"], one["seeds"]) == ("8", "", "2")
    assert (other["samples"], other["regularize"], other["seeds"]) == ("9", '{"variance": 0.5}', "1")
    score, spread = "linear top-1 on shapes", "linear top-1 on shapes_std"
    assert float(one[score]) == 51.0
    assert float(one[spread]) == pytest.approx(2**0.5)
    assert (float(other[score]), other[spread]) == (61.5, "")


def test_a_folder_given_twice_counts_once(tmp_path, monkeypatch):
    one, other = run_in(tmp_path / "a"), run_in(tmp_path / "ab")
    monkeypatch.chdir(tmp_path)
    found = compare_runs([one, other, "a", tmp_path / "ab/../a"], None)
    assert found.names == ("a", "ab")
    assert [outcome.seeds for outcome in found.outcomes] == [1, 1]


def test_the_same_seed_again_is_another_line(tmp_path):
    runs = [run_in(tmp_path / "a"), run_in(tmp_path / "b")]
    for name, seed in (("a-copy", 0), ("a-other", 1), ("a-again", 1), ("a-third", 2)):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        settings = yaml.safe_load((tmp_path / "a/config.yaml").read_text()) | {"seed": seed}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(settings))
        runs.append(tmp_path / name)
    found = compare_runs(runs, None)
    assert [row[0] for row in found.rows] == ["a (3 seeds)", "b", "a-copy (2 seeds)"]
    said = "Lines of the same settings are runs of the same seed."
    assert said in found.notes
    assert said in compare_runs([runs[0], runs[2]], None).notes
    assert said not in compare_runs(runs[:2], None).notes
    assert said not in compare_runs(runs[:1], None).notes


def test_memory_that_is_not_known_is_missing(tmp_path):
    known, unknown = run_in(tmp_path / "a"), run_in(tmp_path / "ab", peak_memory=None)
    found = compare_runs([known, unknown], None)
    assert [row[found.headings.index("memory")] for row in found.rows] == ["1.1 GB", "–"]


def test_a_half_written_folder_is_refused(tmp_path):
    whole, half = run_in(tmp_path / "a"), run_in(tmp_path / "ab")
    (half / "summary.json").write_text('{"finished": tr')
    with pytest.raises(InputError, match=r"ab/summary\.json is damaged"):
        compare_runs([whole, half], None)
    (half / "summary.json").unlink()
    with pytest.raises(InputError, match=r"ab has no summary\.json"):
        compare_runs([whole, half], None)
