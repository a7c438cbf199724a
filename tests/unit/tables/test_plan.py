"""How long the runs of a table may be to fit a budget; costs are given here, not measured."""

import dataclasses
import io
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fullrank.errors import InputError
from fullrank.runs.settings import resolve
from fullrank.tables import costs, names, open_table
from fullrank.tables import plan as planning
from fullrank.tables.carry_out import refuse_other, seconds_left
from fullrank.tables.costs import (
    USED,
    Trial,
    beside,
    fit_budget,
    in_order,
    makespan,
    passes_of,
    refuse_hopeless,
    slots_in_memory,
    time_steps,
    total_seconds,
    training,
)
from fullrank.tables.expand import Judging, expand, fewest_of_class
from fullrank.tables.plan import (
    Plan,
    go_on,
    is_timed,
    most_slots,
    parse_budget,
    settings_in_words,
    threads_of,
    with_epochs,
)
from fullrank.tables.processes import why
from fullrank.training.estimate import open_few

BASE = {"data": "shapes"}
COUNT = 8000


def plan_of(name, step, base=BASE):
    """A plan in which a step of every run takes `step` seconds."""
    jobs = tuple(expand(open_table(name), base, 32, Judging())[0])
    times = {job.name: step for job in jobs}
    return Plan(name, base, jobs=jobs, step=times)


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
        fit_budget(plan, COUNT, Trial(3600 * USED, 0.0), 60.0)


def test_a_budget_that_no_training_would_fit_is_refused_without_timing_the_rest():
    plan = dataclasses.replace(plan_of("expander", 0.05), seeds=2, slots=2)
    trial = Trial(60 * USED, per_picture=1.0)
    refuse_hopeless(plan, trial, 7 * 60 * USED)  # 14 runs, two at once
    with pytest.raises(InputError, match=r"too short for 14 runs: their beginning .* about 7 min here"):
        refuse_hopeless(plan, trial, 7 * 60 * USED - 1)
    calls = []

    def check():
        calls.append(len(calls))
        if len(calls) > 1:
            raise InputError("hopeless")

    small = {"data": "shapes:N=64,size=32", "accelerator": "cpu", "backbone": "test_resnet", "batch_size": 32}
    plan = dataclasses.replace(plan_of("expander", 0.05, small), base=small)
    with pytest.raises(InputError, match="hopeless"):
        time_steps(plan, open_few(resolve(small)), check)
    assert calls == [0, 1]  # the second run of seven was not timed


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


def test_what_a_run_takes_whatever_it_is_given_is_no_reason_for_fewer_pictures():
    plan = plan_of("normalization", 0.05)
    slow_to_begin = Trial(fixed=100.0, per_picture=0.0)
    epochs, samples = fit_budget(plan, COUNT, slow_to_begin, 5 * 150.0)  # two thirds of it are not training
    assert samples == COUNT
    assert epochs > 1
    dear_too = Trial(fixed=100.0, per_picture=0.004)
    assert fit_budget(plan, COUNT, dear_too, 5 * 150.0)[1] == COUNT // 2


def test_a_budget_that_is_too_short_says_what_would_do():
    plan = plan_of("regularization", 0.5)
    with pytest.raises(InputError, match=r"too short for 24 runs: an epoch of 512 pictures each .* about 9 min"):
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


def test_a_plan_is_shown_as_it_is_written():
    odd = "a file at [/data/x] of cifar10.tar.xz[train]"
    plan = dataclasses.replace(plan_of("normalization", 0.1, BASE | {"backbone": "test_resnet"}), notes=(odd,))
    jobs = (dataclasses.replace(plan.jobs[0], name="[bold]one", settings={"method": "[red]vicreg"}), *plan.jobs[1:])
    said = io.StringIO()
    Console(file=said, width=200).print(dataclasses.replace(plan, jobs=jobs).render())
    assert all(words in said.getvalue() for words in (odd, "[bold]one", "[red]vicreg"))


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
    assert seconds_left(plan, [four, four], [(three, 30.0)], ended) == 60 + 90
    assert seconds_left(plan, [five], [(three, 30.0)], ended) == 360  # the longest alone
    assert seconds_left(plan, [], [(three, 95.0)], ended) == 0
    assert seconds_left(plan, [], [], ended) == 0


def test_a_table_is_gone_on_with_where_nothing_but_the_how_is_another(tmp_path):
    plan = plan_of("expander", 0.1)
    plan.write(tmp_path)
    elsewhere = dataclasses.replace(plan, seeds=3, jobs=(), slots=8, base=BASE | {"accelerator": "cpu", "workers": 4})
    refuse_other(elsewhere, tmp_path)
    for other, words in (
        ({"base": BASE | {"backbone": "resnet18"}}, "with backbone left out, not resnet18"),
        ({"seed": 1}, "with seed 0, not 1"),
        ({"table": "coefficients"}, "holds the table expander, not coefficients"),
        ({"budget": 90.0}, "with budget left out, not 1 min 30 s"),
        ({"judging": Judging({"VOC07": "voc"})}, "with downstream left out, not {'VOC07': 'voc'}"),
        ({"judging": Judging(detection_steps=5)}, "with detection_steps left out, not 5"),
    ):
        with pytest.raises(InputError, match=words):
            refuse_other(dataclasses.replace(plan, **other), tmp_path)


def test_runs_side_by_side(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planning, "cpu_count", lambda: 6)
    assert most_slots(BASE, 24, timed=False) == 6
    assert most_slots(BASE, 2, timed=False) == 2
    assert most_slots(BASE, 24, timed=True) == 1  # each has the machine for itself
    assert [threads_of(BASE, slots) for slots in (6, 2, 1)] == [1, 3, 6]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert most_slots(BASE, 24, timed=False) == 4
    assert most_slots(BASE, 3, timed=False) == 3
    assert threads_of(BASE, 4) is None
    on_cpu = BASE | {"accelerator": "cpu"}
    assert (most_slots(on_cpu, 24, timed=False), threads_of(on_cpu, 6)) == (6, 1)


def test_no_more_runs_than_memory_holds(monkeypatch):
    monkeypatch.setattr(costs, "available_memory", lambda: 7 << 30)
    assert slots_in_memory(6, Trial(5.0, 0.0, memory=3 << 30)) == 2
    assert slots_in_memory(2, Trial(5.0, 0.0, memory=1 << 30)) == 2
    assert slots_in_memory(6, Trial(5.0, 0.0, memory=9 << 30)) == 1  # the one that was tried did run


def test_a_recipe_that_says_something_else_now_is_refused(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("learning_rate: 0.3\n")
    base = BASE | {"recipe": str(recipe)}
    plan_of("expander", 0.1, base).write(tmp_path)

    def again():
        refuse_other(Plan("expander", base, planning.named_recipe(base)), tmp_path)

    with pytest.raises(InputError, match=r"learning_rate in its recipe left out, not 0\.3"):
        again()
    dataclasses.replace(plan_of("expander", 0.1, base), recipe=planning.named_recipe(base)).write(tmp_path)
    again()
    recipe.write_text("learning_rate: 0.2\n")
    with pytest.raises(InputError, match=r"learning_rate in its recipe 0\.3, not 0\.2: choose another --output"):
        again()


@pytest.mark.parametrize("text", ["{", "[]", '{"jobs": []}', '{"jobs": [], "judging": {"new": 1}, "notes": []}'])
def test_a_plan_that_cannot_be_read_is_told_in_a_line(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=r"plan\.json is damaged, or of another version"):
        Plan.read(tmp_path)


def test_a_table_goes_on_as_it_is_asked_for_now(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planning, "cpu_count", lambda: 4)
    plan = dataclasses.replace(plan_of("expander", 0.1, BASE | {"workers": 3, "epochs": 2.0}), slots=2, threads=2)
    now = go_on(plan, {"data": "shapes", "epochs": 2.0, "accelerator": "cpu"}, 3)
    assert now.base == {"data": "shapes", "epochs": 2.0, "accelerator": "cpu"}
    assert (now.seeds, now.slots, now.threads, now.jobs) == (3, 2, 2, plan.jobs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    elsewhere = go_on(plan, {"data": "shapes", "epochs": 2.0}, 1)
    assert (elsewhere.slots, elsewhere.threads) == (1, None)


def test_runs_begin_as_slots_become_free():
    assert makespan([3, 2, 2], 2) == 4
    assert makespan([1, 1, 6], 2) == 7
    assert makespan([1, 1], 3, begun=[5, 2]) == 5
    assert makespan([], 2) == 0
    assert in_order([1, 1, 6], 2) == [2, 0, 1]  # 6 in place of 7
    assert in_order([60, 61, 62, 60], 2) == [0, 1, 2, 3]  # nothing to be won


def test_one_long_run_bounds_a_table_on_many_cores():
    plan = plan_of("batch-size", 0.05)  # a batch of 8 takes 32 times the steps of one of 256
    plan = dataclasses.replace(plan, slots=6)
    trial = Trial(fixed=5.0, per_picture=0.001)
    epochs, samples = fit_budget(plan, COUNT, trial, 1800.0)
    planned = dataclasses.replace(plan, total=total_seconds(plan, samples, trial, epochs))
    assert 0.9 * 1800 < planned.seconds <= 1800
    assert max(planned.total.values()) <= 1800
    assert planned.runs([0])[0][0] == max(plan.jobs, key=lambda job: planned.total[job.name])


def test_an_epoch_of_captions_is_one_of_their_pairs():
    plan = dataclasses.replace(plan_of("multimodal", 0.1), captions=5.0)
    assert [training(plan, job, COUNT, 2.0) for job in plan.jobs] == [pytest.approx(2 * (5 * COUNT // 128) * 0.1)] * 3
    alone = dataclasses.replace(plan_of("coefficients", 0.1), captions=5.0)
    assert training(alone, alone.jobs[0], COUNT, 2.0) == 2 * (COUNT // 128) * 0.1


def test_fine_tuning_is_counted_by_its_passes():
    assert passes_of({"protocol": "linear"}) == 0
    assert passes_of({"protocol": "finetune", "percent": 1}) == pytest.approx(20 * (3 * 0.008 + 0.2))
    plan = dataclasses.replace(plan_of("imagenet", 0.6), judging=Judging(smallest_class=1000))
    [job] = [job for job in plan.jobs if job.name == "vicreg"]
    without = dataclasses.replace(job, judged=({"protocol": "linear"},))
    more = beside(plan, job, 8000, Trial(1.0, 0.0)) - beside(plan, without, 8000, Trial(1.0, 0.0))
    forward = 0.6 / resolve({**BASE, **job.settings}).batch_size / 6
    assert more == pytest.approx(forward * 8000 * 20 * (3 * 0.008 + 0.2 + 3 * 0.08 + 0.2))


def test_no_fewer_pictures_than_one_percent_of_every_class_needs():
    plan = dataclasses.replace(plan_of("imagenet", 0.05), judging=Judging(smallest_class=1000))
    dear = Trial(fixed=5.0, per_picture=0.08)
    _, samples = fit_budget(plan, COUNT, dear, 1500.0)
    assert samples == math.ceil(COUNT * fewest_of_class(1) / 1000) == 753
    lone = dataclasses.replace(plan, judging=Judging())
    assert fit_budget(lone, COUNT, dear, 1500.0)[1] < 753


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (2, "log\nfullrank: error: no such file\n\n", "no such file"),
        (1, "", "it ended with 1 and said nothing"),
        (255, "error: out of space", "error: out of space"),
        (200, "", "it ended with 200 and said nothing"),
        (-35, "", "it ended with -35 and said nothing"),
        (3221225477, "", "it ended with 3221225477 and said nothing"),
        (-9, "half a line", "ended by SIGKILL, as when memory runs out"),
        (137, "", "ended by SIGKILL, as when memory runs out"),
        (143, "", "ended by SIGTERM"),
    ],
)
def test_why_a_run_ended(code, said, words):
    assert why(code, said) == words


@pytest.fixture
def pictures(tmp_path):
    """A set of 64 pictures without labels."""
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (64, 32, 32, 3), dtype=np.uint8))
    return path


SMALL = {"accelerator": "cpu", "backbone": "test_resnet", "batch_size": 32, "recipe": "shapes", "epochs": 1.0}
GIVEN = {"downstream": {}, "budget": None, "seed": 0, "seeds": 1, "say": lambda text: None}


def test_data_without_labels_can_be_planned(pictures):
    plan = planning.make_plan("normalization", SMALL | {"data": str(pictures)}, **GIVEN)
    assert {job.judged for job in plan.jobs} == {()}
    assert plan.notes == ("The data has no labels: there is no accuracy, and the verdict alone decides.",)


def test_a_trial_that_is_given_up_is_ended():
    given_up = threading.Event()
    given_up.set()
    plan = plan_of("expander", 0.1)
    with pytest.raises(InputError, match="ended by SIGKILL"):
        planning.try_out(plan, COUNT, given_up)


def test_who_stops_a_plan_does_not_wait_for_its_trial(monkeypatch):
    seen = []

    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(planning, "cpu_count", lambda: 2)  # with one core runs are not timed beside the trial
    monkeypatch.setattr(planning, "try_out", lambda plan, count, given_up: seen.append(given_up.wait(60)))
    monkeypatch.setattr(planning, "time_steps", stop)
    with pytest.raises(KeyboardInterrupt):
        planning.make_plan("expander", SMALL | {"data": "shapes:N=400,size=32"}, **GIVEN)
    assert seen == [True]


def test_the_first_run_may_be_the_one_that_is_left_out(tmp_path, monkeypatch):
    """The first is the one that is tried as a whole."""
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 255, (64, 32, 32), dtype=np.uint8))

    def two_alone(*given):
        jobs, notes = expand(*given)
        return [job for name in ("cmc", "vicreg") for job in jobs if job.name == name], notes

    monkeypatch.setattr(planning, "expand", two_alone)
    plan = planning.make_plan("imagenet", SMALL | {"data": str(tmp_path / "grey.npy")}, **GIVEN)
    assert "cmc is left out: cmc splits the colours of RGB images" in plan.notes[-1]
    assert [job.name for job in plan.jobs] == list(plan.total) == ["vicreg"]
    assert plan.total["vicreg"] > 0


def test_small_classes_and_missing_colours_are_no_reason_to_give_up(tmp_path):
    chance = np.random.default_rng(0)
    for number in range(400):  # 50 a class, grey
        path = tmp_path / f"pictures/{number % 8}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    given = SMALL | {"data": str(tmp_path / "pictures")}
    plan = planning.make_plan("imagenet", given, **GIVEN)
    [vicreg] = [job for job in plan.jobs if job.name == "vicreg"]
    assert [each.get("percent") for each in vicreg.judged] == [None, 10]
    assert "Left empty: 1 % top-1, 1 % top-5; the smallest class has" in plan.notes[0]
    [cmc] = [job.name for job in expand(open_table("imagenet"), SMALL, 32, Judging())[0] if "cmc" in job.name]
    assert plan.notes[1:] == (f"{cmc} is left out: cmc splits the colours of RGB images, and these have 1 channel.",)
    assert len(plan.jobs) == 14
    assert cmc not in {job.name for job in plan.jobs} | set(plan.step) | set(plan.total)
    del given["epochs"]
    fitted = planning.make_plan("imagenet", given, **GIVEN | {"budget": 5 * 3600.0})
    assert [job.name for job in fitted.jobs] == [job.name for job in plan.jobs]
    assert set(fitted.total) == {job.name for job in plan.jobs}
    assert fitted.epochs > 1


def test_what_no_run_can_take_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown backbone"):
        planning.make_plan("expander", SMALL | {"backbone": "resnet51", "data": "shapes:N=400,size=32"}, **GIVEN)


@pytest.mark.parametrize(("seconds", "said"), [(100.0, "of the 2 min that were given"), (200.0, "about 3 min 20 s")])
def test_seeds_that_are_added_are_not_of_the_budget(seconds, said):
    plan = dataclasses.replace(plan_of("expander", 1.0), budget=120.0, slots=7)
    plan = dataclasses.replace(plan, total={job.name: seconds for job in plan.jobs})
    console = Console(width=200, file=io.StringIO())
    console.print(plan.render())
    assert said in console.file.getvalue()
    assert ("were given" in console.file.getvalue()) is (seconds < 120)


def test_which_tables_are_timed():
    assert [name for name in names() if is_timed(open_table(name))] == ["cost"]
