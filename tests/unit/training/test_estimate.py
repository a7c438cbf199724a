"""What a run would take: what is timed, and what is counted. Times themselves are not looked at."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fullrank.data.memory import available_memory
from fullrank.errors import InputError, Interrupted
from fullrank.runs.settings import resolve
from fullrank.training.estimate import FEW, LOOKED, Clock, devices_of, few_of, open_few, plan_run, seconds_of_step

TINY = {"backbone": "test_resnet", "expander": "16-16", "batch_size": 8}


def test_a_few_pictures_are_opened_of_many():
    opened = open_few(resolve({"data": "digits", **TINY}))
    assert (opened.count, len(opened.pictures), opened.image_size) == (1437, LOOKED, 32)
    assert opened.placement == "memory"
    assert len(set(opened.pictures.labels.tolist())) == 10


def test_pictures_of_many_sizes_are_timed_as_workers_load_them(tmp_path):
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    settings = resolve({"data": str(tmp_path), **TINY, "batch_size": 4})
    opened = open_few(settings)
    assert (opened.count, opened.placement) == (12, "workers")
    assert seconds_of_step(settings, opened) > 0


def test_the_clock_counts_steps_of_the_optimiser():
    clock, trainer = Clock(), SimpleNamespace(accumulate_grad_batches=3)
    clock.on_train_start(trainer, None)
    for number in range(7):
        clock.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, number)
    assert len(clock.seconds) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_steps_are_timed_is_that_signal(monkeypatch, number):
    """And not the exit that Lightning makes of it; the next one is heard too."""
    heard = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Clock, "on_train_batch_end", lambda *given: signal.raise_signal(number))
    settings = resolve({"data": "shapes:N=64,size=32", "backbone": "test_resnet", "batch_size": 16})
    with pytest.raises(Interrupted, match="nothing was saved") as stop:
        seconds_of_step(settings, open_few(settings))
    assert stop.value.signal == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == heard


def test_the_settings_that_are_timed_are_not_changed():
    settings = resolve({"data": "digits", **TINY, "devices": 2})
    before = dict(vars(settings))
    seconds_of_step(settings, open_few(settings))
    assert vars(settings) == before


@pytest.mark.parametrize(("devices", "nodes", "together"), [("auto", 1, 1), (4, 1, 4), ("2", 3, 6)])
def test_devices_over_all_machines(devices, nodes, together):
    settings = resolve({"data": "digits", "devices": devices, "num_nodes": nodes, "accelerator": "cpu"})
    assert devices_of(settings) == together


@pytest.mark.skipif(torch.cuda.is_available(), reason="the memory of a GPU is another")
def test_networks_that_fill_the_memory_are_timed_with_two_pictures():
    assert few_of(1_000_000) == FEW
    assert few_of(available_memory() // 8) == 2  # weights, gradients and the optimiser's state: twice what there is


def test_the_plan_counts_what_the_run_would_do():
    plan = plan_run({"data": "digits", **TINY, "epochs": 3, "samples": 100})
    assert (plan.pictures, plan.steps, plan.devices) == (100, 36, 1)
    assert plan.views == ((32, 2),)
    assert plan.seconds == plan.steps * plan.step
    assert plan.to_dict()["settings"]["expander"] == "16-16"
    assert plan_run({"data": "digits", **TINY, "steps": 7}).steps == 7


def test_unusable_settings_are_refused():
    with pytest.raises(InputError, match="batch_size 5000 is larger than the set of 1437 images"):
        plan_run({"data": "digits", **TINY, "batch_size": 5000})
    with pytest.raises(InputError, match="unknown option 'lambda_'"):
        plan_run({"data": "digits", "lambda_": 3})
