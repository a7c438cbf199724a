"""How long the runs of a table may be to fit a budget; costs are given here, not measured."""

import dataclasses
import io

import pytest
import torch
from rich.console import Console

from fullrank.errors import InputError
from fullrank.runs.settings import resolve
from fullrank.tables import names, open_table
from fullrank.tables import plan as planning
from fullrank.tables.carry_out import refuse_other, seconds_left
from fullrank.tables.expand import expand
from fullrank.tables.plan import (
    Plan,
    Trial,
    beside,
    fit_budget,
    is_timed,
    parse_budget,
    settings_in_words,
    side_by_side,
    total_seconds,
    with_epochs,
)

BASE = {"data": "shapes"}
COUNT = 8000


def plan_of(name, step, base=BASE):
    """A plan in which a step of every run takes `step` seconds."""
    jobs = tuple(expand(open_table(name), base, 32, {})[0])
    times = {job.name: step for job in jobs}
    return Plan(name, base, {}, None, None, None, 0, 1, jobs, 1, step=times)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("90s", 90), ("1.5 h", 5400), ("1d", 86400)]
)
def test_budgets_in_words(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["30", "soon", "30 minutes please", "-1h", "0m", "", "m30"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="budget is"):
        parse_budget(text)


def test_no_budget():
    assert parse_budget(None) is None


@pytest.mark.parametrize("table", ["regularization", "expander", "batch-size"])
@pytest.mark.parametrize("seconds", [900, 3600])
def test_the_whole_table_fits_and_leaves_little_over(table, seconds):
    plan = plan_of(table, 0.05)
    trial = Trial(fixed=5.0, per_picture=0.001)
    epochs, samples = fit_budget(plan, COUNT, trial, seconds)
    assert samples == COUNT
    planned = dataclasses.replace(plan, jobs=tuple(with_epochs(job, BASE, epochs) for job in plan.jobs))
    taken = sum(total_seconds(planned, samples, trial, epochs).values())
    assert 0.9 * seconds < taken <= seconds
    of_one = planned.jobs[0]
    settings = resolve({**BASE, **of_one.settings})
    steps = int(epochs * (samples // settings.batch_size))
    expected = steps * 0.05 + 5 + 0.001 * COUNT + 2 * 7000 * 0.05 / settings.batch_size / 6
    assert total_seconds(planned, samples, trial, epochs)[of_one.name] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "seeds", "slots", "rounds"), [("expander", 1, 2, 4), ("expander", 2, 2, 7), ("regularization", 1, 16, 2)]
)
def test_a_last_run_that_has_no_other_beside_it_is_counted(name, seeds, slots, rounds):
    plan = dataclasses.replace(plan_of(name, 0.05), seeds=seeds, slots=slots)
    same = dataclasses.replace(plan, total={job.name: 60.0 for job in plan.jobs})
    assert same.seconds == pytest.approx(60 * rounds)
    with pytest.raises(InputError, match=f"too short .* about {rounds} h"):
        fit_budget(plan, COUNT, Trial(3600 * planning.USED, 0.0), 60.0)


def test_pictures_that_were_asked_for_stay_the_ones_asked_for():
    asked = {"data": "shapes:N=300,size=32", "samples": 200, "accelerator": "cpu", "backbone": "test_resnet"}
    planned = planning.make_plan(
        *("normalization", asked | {"batch_size": 32, "recipe": "shapes"}),
        **{"downstream": {}, "budget": 3600.0, "seed": 0, "seeds": 1, "say": lambda text: None},
    )
    assert planned.epochs is not None
    assert {planned.settings_of(job, 0)["samples"] for job in planned.jobs} == {200}


def test_fewer_pictures_where_loading_them_would_take_the_time():
    plan = plan_of("expander", 0.05)
    dear = Trial(fixed=5.0, per_picture=0.02)  # 160 s a run for all
    epochs, samples = fit_budget(plan, COUNT, dear, 900.0)
    assert samples == 2000
    others = sum(beside(plan, job, samples, dear) for job in plan.jobs)
    assert others < 0.5 * 900
    assert sum(beside(plan, job, 2 * samples, dear) for job in plan.jobs) > 0.5 * 900
    assert sum(total_seconds(plan, samples, dear, epochs).values()) <= 900


def test_a_budget_that_is_too_short_says_what_would_do():
    plan = plan_of("regularization", 0.5)
    with pytest.raises(InputError, match=r"too short for 24 runs: an epoch of 512 pictures each .* about 8 min"):
        fit_budget(plan, COUNT, Trial(15.0, 0.001), 60.0)


def test_another_length_keeps_warm_up_below_a_tenth():
    plan = plan_of("coefficients", 0.1)
    assert with_epochs(plan.jobs[0], BASE, 3.0).settings["warmup_epochs"] == pytest.approx(0.3)
    assert with_epochs(plan.jobs[0], BASE, 20.0).settings["warmup_epochs"] == 0.5  # as the recipe has it
    assert "warmup_epochs" not in with_epochs(plan.jobs[0], {"data": "photos/"}, 3.0).settings  # the method's own


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = dataclasses.replace(plan_of("weight-sharing", 0.1), epochs=2.5, samples=100, notes=("one",))
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert Plan.read(tmp_path).settings_of(plan.jobs[1], 7) == {
        **{"data": "shapes", "method": "simclr", "branches": "shared"},
        **{"samples": 100, "seed": 7},
    }


def test_settings_as_on_the_command_line():
    settings = {
        "method": "byol",
        "regularize": {"variance": 25.0},
        "predictor": "",
        "epochs": 0.1 + 0.2,
        "views": [{"count": 2}, {"count": 6}],
    }
    assert settings_in_words(settings) == "method byol, regularize.variance 25, predictor none, epochs 0.3, 8 views"


def test_what_all_runs_have_in_common_is_said_once():
    plan = plan_of("coefficients", 0.1)
    plan = dataclasses.replace(plan, jobs=tuple(with_epochs(job, BASE, 4.9) for job in plan.jobs))
    assert plan.in_common == {"method": "vicreg", "epochs": 4.9, "warmup_epochs": 0.49}
    assert plan.own_words(plan.jobs[0].settings).startswith("invariance ")
    said = io.StringIO()
    Console(file=said, width=200).print(plan.render())
    assert said.getvalue().count("epochs 4.9") == 1


def test_what_is_left_goes_by_the_pace_of_the_runs_that_ended():
    plan = plan_of("normalization", 0.1)
    one, two, three, four, five = plan.jobs
    plan = dataclasses.replace(plan, slots=2, total={job.name: 60.0 for job in plan.jobs} | {five.name: 240.0})
    ended = [(one, 100.0), (two, 80.0)]  # half as long again as planned
    assert seconds_left(plan, [four, four], [(three, 30.0)], ended) == (60 + 90 + 90) / 2
    assert seconds_left(plan, [five], [(three, 30.0)], ended) == 360  # the longest alone
    assert seconds_left(plan, [], [(three, 95.0)], ended) == 0
    assert seconds_left(plan, [], [], ended) == 0


def test_a_table_is_gone_on_with_where_nothing_but_the_how_is_another(tmp_path):
    plan = plan_of("expander", 0.1)
    plan.write(tmp_path)
    elsewhere = dataclasses.replace(plan, seeds=3, jobs=(), slots=8, base=BASE | {"accelerator": "cpu", "workers": 4})
    refuse_other(elsewhere, tmp_path)
    for other, words in (
        ({"base": BASE | {"backbone": "resnet18"}}, "with backbone None, not resnet18"),
        ({"seed": 1}, "with seed 0, not 1"),
        ({"table": "coefficients"}, "with table expander, not coefficients"),
        ({"budget": 60.0}, "with budget None, not 60.0"),
        ({"downstream": {"VOC07": "voc"}}, "with downstream {}, not {'VOC07': 'voc'}"),
    ):
        with pytest.raises(InputError, match=words):
            refuse_other(dataclasses.replace(plan, **other), tmp_path)


def test_runs_side_by_side(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planning, "cpu_count", lambda: 6)
    monkeypatch.setattr(planning, "available_memory", lambda: 64 << 30)
    assert side_by_side(BASE, 24, timed=False) == (6, 1)
    assert side_by_side(BASE, 2, timed=False) == (2, 3)
    assert side_by_side(BASE, 24, timed=True) == (1, 6)  # each has the machine for itself
    monkeypatch.setattr(planning, "available_memory", lambda: 7 << 30)
    assert side_by_side(BASE, 24, timed=False) == (2, 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert side_by_side(BASE, 24, timed=False) == (4, None)
    assert side_by_side(BASE, 3, timed=False) == (3, None)
    assert side_by_side(BASE | {"accelerator": "cpu"}, 24, timed=False) == (2, 3)


def test_which_tables_are_timed():
    assert [name for name in names() if is_timed(open_table(name))] == ["cost"]
