"""`fullrank reproduce` and `compare` in real processes: planned, killed, continued, with a run that fails."""

import csv
import json
import os
import signal
import time

import numpy as np
import pytest

import fullrank
from fullrank.report.wording import duration

DATA = ["--data", "shapes:N=256,size=32", "--epochs", "1"]
NORMALIZATION = ["reproduce", "normalization", *DATA, "--output", "table"]


def wait_for(holds, seconds=180):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def workers(folder):
    """The numbers of the processes that carry out runs of a table."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                if b"fullrank.tables.work" in words and os.readlink(f"/proc/{entry}/cwd") == str(folder):
                    found.append(int(entry))
            except OSError:  # gone meanwhile
                continue
    return found


def finished(folder):
    """Summaries of finished runs with the times at which they were written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in folder.glob("table/runs/*/summary.json")
        if json.loads(path.read_text()).get("finished") and (path.parent / "judged.json").exists()
    }


def calls(folder):
    """Seconds of each call that carried out runs of a table."""
    return json.loads((folder / "table/calls.json").read_text())


def test_a_table_is_killed_continued_and_filled_though_a_run_fails(command):
    folder = command.folder
    began = time.monotonic()
    first = command.start(*NORMALIZATION)
    wait_for(lambda: len(finished(folder)) >= 1 and workers(folder))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    lived = time.monotonic() - began
    wait_for(lambda: not workers(folder), 30)  # runs stop when nobody waits for them
    done = finished(folder)
    assert not (folder / "table/table.md").exists()
    killed = calls(folder)
    assert len(killed) == 1
    assert 0 < killed[0] < lived

    plan = json.loads((folder / "table/plan.json").read_text())
    assert len(plan["jobs"]) == 5
    broken = plan["jobs"][-1]
    assert not (folder / f"table/runs/{broken['name']}-seed0").exists()  # one that has not begun
    broken["settings"]["expander"] = "wide"
    (folder / "table/plan.json").write_text(json.dumps(plan))
    second = command(*NORMALIZATION)
    assert second.returncode == 1, second.stderr  # one of the runs failed
    assert f"{len(done)} of 5 runs are done already" in second.stderr
    assert f"{broken['name']}-seed0 FAILED" in second.stderr
    assert f"failed: {broken['name']}-seed0: " in second.stdout
    after = finished(folder)
    assert len(after) == 4
    both = calls(folder)
    assert both[:1] == killed
    took = f"{duration(sum(both))} in 2 calls"
    assert f"; with its plan the table took {took}" in second.stderr
    assert f"| took | {took} |" in (folder / "table/table.md").read_text()
    assert {name: after[name] for name in done} == done  # not done again

    rows = list(csv.DictReader((folder / "table/table.csv").read_text().splitlines()))
    assert [row["published"] for row in rows] == ["68.6", "68.4", "67.4", "67.2", "65.1"]
    assert [row["ours"] == "" for row in rows] == [row["failure"] != "" for row in rows]
    for row in rows:
        name = next((name for name in after if name.startswith(row["row"].replace(", ", "-").lower())), None)
        if row["failure"]:
            continue
        summary = json.loads((folder / "table/runs" / name / "summary.json").read_text())
        judged = json.loads((folder / "table/runs" / name / "judged.json").read_text())
        assert float(row["knn"]) == summary["knn"]["trained"]
        assert float(row["ours"]) == judged['{"protocol": "linear"}']["scores"]["top1"]
        assert row["verdict_Z"] == summary["verdict"]["Z"]["verdict"]
        assert row["epochs"] == "1.0"
        settings = summary["settings"]
        assert f"normalize_embedding {settings['normalize_embedding']}" in row["settings"]
    curves = list(csv.DictReader((folder / "table/curves.csv").read_text().splitlines()))
    assert {row["run"] for row in curves} == {row["row"] for row in rows if row["ours"]}
    for row in rows:
        if row["ours"]:
            course = [each for each in curves if each["run"] == row["row"]]
            assert [each["seed"] for each in course] == ["0"] * len(course)
            assert float(course[-1]["knn"]) > 0
    page = (folder / "table/table.html").read_text()
    markdown = (folder / "table/table.md").read_text()
    for words in ("Does it help to normalise Y or Z?", f"{broken['name']}-seed0 failed", "arXiv:2105.04906"):
        assert words in page
        assert words in markdown

    refused = command.fails(*NORMALIZATION[:-3], "2", "--output", "table")
    assert "table holds a table with epochs 1.0, not 2.0: choose another --output, or add --overwrite" in refused
    refused = command.fails("reproduce", "coefficients", *NORMALIZATION[2:])
    assert "table holds the table normalization, not coefficients: choose another --output" in refused

    mended = json.loads((folder / "table/plan.json").read_text())
    next(job for job in mended["jobs"] if job["name"] == broken["name"])["settings"].pop("expander")
    (folder / "table/plan.json").write_text(json.dumps(mended))
    half_written = folder / f"table/runs/{broken['name']}-seed0"
    half_written.mkdir()
    (half_written / "config.yaml").write_text("method: vicreg\n")  # killed before anything else was written
    third = command(*NORMALIZATION)
    assert third.returncode == 0, third.stderr
    assert len(finished(folder)) == 5
    assert len(calls(folder)) == 3
    again = command(*NORMALIZATION)
    assert "5 of 5 runs are done already" in again.stderr
    assert len(calls(folder)) == 3  # it had nothing to carry out

    refused = command.fails(*NORMALIZATION, "--backbone", "resnet51", "--overwrite")
    assert "resnet51" in refused
    assert len(finished(folder)) == 5  # what cannot be planned deletes nothing


def test_a_signal_saves_the_runs_and_the_same_command_goes_on_from_there(command):
    asked = ["reproduce", "collapse-std", *DATA[:2], "--epochs", "400", "--output", "table"]
    for number, begun in ((signal.SIGINT, "step "), (signal.SIGTERM, "going on after step ")):
        process = command.start(*asked)
        wait_for(lambda: any(begun in log.read_text() for log in command.folder.glob("table/logs/*.log")))  # noqa: B023
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + number
        assert "stopped with 0 of 6 runs done; the same command goes on" in err
        assert not workers(command.folder)
        assert len(calls(command.folder)) == (1 if number == signal.SIGINT else 2)
        assert list(command.folder.glob("table/runs/*/last.ckpt"))


def test_stopped_while_it_plans_it_says_so(command):
    process = command.start_cold(*NORMALIZATION)
    said = iter(process.stderr.readline, "")
    assert any("timing a few steps" in line for line in said)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert err.splitlines()[-1] == "fullrank: stopped; nothing was saved"
    assert not (command.folder / "table").exists()


def test_a_second_signal_ends_runs_that_do_not_stop(command):
    process = command.start("reproduce", "collapse-std", *DATA[:2], "--epochs", "400", "--output", "table")
    wait_for(lambda: any("step " in log.read_text() for log in command.folder.glob("table/logs/*.log")))
    stuck = workers(command.folder)
    for number in stuck:
        os.kill(number, signal.SIGSTOP)  # deaf to being asked
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "a second Ctrl-C ends them at once" in err
    assert not set(stuck) & set(workers(command.folder))


def test_pictures_without_labels_have_verdicts(command):
    pictures = np.random.default_rng(0).integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    np.save(command.folder / "pictures.npy", pictures)
    short = ["--recipe", "shapes", "--batch_size", "32", "--epochs", "1", "--output", "table"]
    done = command("reproduce", "normalization", "--data", "pictures.npy", *short)
    assert done.returncode == 0, done.stderr
    assert "The data has no labels" in done.stdout
    rows = list(csv.DictReader((command.folder / "table/table.csv").read_text().splitlines()))
    assert {(row["ours"], row["knn"]) for row in rows} == {("", "")}
    assert all(row["verdict_Z"] and row["Z_rank"] for row in rows)
    assert "no labels" in (command.folder / "table/table.html").read_text()


def test_images_and_sentences(command):
    done = command("reproduce", "multimodal", *DATA, "--output", "table")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((command.folder / "table/table.csv").read_text().splitlines()))
    assert [row["row"] for row in rows[::6]] == ["Contrastive (VSE++)", "Barlow Twins", "VICReg"]
    assert [row["column"] for row in rows[:6]] == [
        f"{way} R@{k}" for way in ("image to text", "text to image") for k in (1, 5, 10)
    ]
    for start in (0, 6, 12):
        first, second, third = (float(row["ours"]) for row in rows[start : start + 3])
        assert 0 <= first <= second <= third <= 100
    for path in command.folder.glob("table/runs/*/judged.json"):
        assert json.loads(path.read_text())['{"protocol": "retrieval"}']["scores"]["t2i_r10"] > 0
    assert len(list(command.folder.glob("table/runs/*/judged.json"))) == 3


def test_other_data_sets_judge_what_was_learnt(command):
    planned = ["reproduce", "downstream", *DATA, "--downstream.Places205", "digits", "--output", "table"]
    done = command(*planned, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["jobs"]) == 11
    (command.folder / "table").mkdir()
    plan["jobs"] = [job for job in plan["jobs"] if job["name"] == "vicreg"]
    (command.folder / "table/plan.json").write_text(json.dumps(plan))
    done = command(*planned)
    assert done.returncode == 0, done.stderr
    [row] = [
        row
        for row in csv.DictReader((command.folder / "table/table.csv").read_text().splitlines())
        if row["row"] == "VICReg" and row["column"] == "Places205"
    ]
    [judged] = json.loads((command.folder / "table/runs/vicreg-seed0/judged.json").read_text()).values()
    assert judged["n_train"] + judged["n_test"] == 1797
    assert float(row["ours"]) == judged["scores"]["top1"] > 10
    assert row["published"] == "54.3"
    assert "VOC07" in (command.folder / "table/table.md").read_text().split("Left empty")[1]


def test_the_plan_writes_nothing(command):
    done = command("reproduce", "expander", *DATA[:2], "--budget", "10m", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [job["settings"]["expander"].split("-")[0] for job in plan["jobs"]] == [
        str(2**power) for power in range(4, 11)
    ]
    assert 0 < sum(plan["total"].values()) / plan["slots"] <= 600
    assert plan["epochs"] == plan["jobs"][0]["settings"]["epochs"] > 1
    assert list(command.folder.iterdir()) == []


def test_what_cannot_be_planned_is_refused(command):
    assert "unknown table 'expandr'" in command.fails("reproduce", "expandr")
    assert "budget is 'soon'" in command.fails("reproduce", "expander", "--budget", "soon")
    assert "give one of them" in command.fails("reproduce", "expander", "--budget", "1h", "--epochs", "2")
    assert "seeds is 0" in command.fails("reproduce", "expander", "--seeds", "0")
    assert "no file or folder 'nowhere'" in command.fails("reproduce", "expander", "--data", "nowhere")
    (command.folder / "full").mkdir()
    (command.folder / "full/notes.txt").write_text("mine")
    assert "holds no table" in command.fails("reproduce", "expander", *DATA, "--output", "full")
    assert (command.folder / "full/notes.txt").read_text() == "mine"


def test_runs_side_by_side(command):
    runs = []
    for width, seed in ((16, 0), (16, 1), (24, 0)):
        runs.append(f"runs/{width}-{seed}")
        options = {"batch_size": 32, "steps": 4, "report": False, "expander": f"{width}-{width}", "seed": seed}
        fullrank.train("shapes:N=128,size=32", **options, output=str(command.folder / runs[-1]))
    done = command("compare", *runs, "--json", "--output", "side")
    assert done.returncode == 0, done.stderr
    [two, one] = json.loads(done.stdout)["runs"]
    assert two["settings"] == {"expander": "16-16"}
    assert one["settings"] == {"expander": "24-24"}
    summaries = [json.loads((command.folder / run / "summary.json").read_text()) for run in runs]
    knn = [summary["knn"]["trained"] for summary in summaries]
    assert two["knn"] == pytest.approx((knn[0] + knn[1]) / 2)
    assert two["knn_std"] == pytest.approx(abs(knn[0] - knn[1]) / 2**0.5)
    assert one["knn"] == knn[2]
    assert "knn_std" not in one
    rows = list(csv.DictReader((command.folder / "side/compare.csv").read_text().splitlines()))
    assert [row["expander"] for row in rows] == ["16-16", "24-24"]
    assert [row["seeds"] for row in rows] == ["2", "1"]
    page = (command.folder / "side/compare.html").read_text()
    assert "24-24" in page
    assert "learning_rate" not in (command.folder / "side/compare.md").read_text()  # the same in all
    assert "is not a run" in command.fails("compare", runs[0], "nowhere")
