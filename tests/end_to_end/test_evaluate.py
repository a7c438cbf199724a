"""Protocols that train, in real processes: several of them, and one that is killed."""

import json
import time

import pytest

SET = ["--data", "shapes:N=400,size=32", "--device", "cpu", "--json"]


def scores(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["scores"]


def test_two_processes_train_the_classifier_that_one_trains(trained):
    """The network is frozen, so that no batch norm sees halves of batches."""
    command, folder, _ = trained
    probe = ["evaluate", folder, "--protocol", "linear", "--schedule", "vicreg", "--learning_rate", "20"]
    probe += ["--epochs", "12"]
    one = command(*probe, *SET, "--output", "one")
    two = command(*probe, *SET, "--output", "two", "--devices", "2")
    assert scores(one) == pytest.approx(scores(two), abs=0.6)  # a picture or two on the border
    assert max(scores(one)["per_class"], scores(one)["best"]) > 17  # classes are told apart
    (kept,) = (command.folder / "two").iterdir()
    assert json.loads(kept.read_text())["scores"] == scores(two)


def test_a_killed_fine_tuning_goes_on_to_the_same_end(trained):
    command, folder, _ = trained
    tuning = ["evaluate", folder, "--protocol", "finetune", "--percent", "50", "--batch_size", "50", "--epochs", "12"]
    whole = command(*tuning, *SET, "--output", "whole")
    process = command.start(*tuning, *SET, "--output", "killed")
    deadline = time.monotonic() + 120
    while not (kept := list((command.folder / "killed").glob("*.ckpt"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert list((command.folder / "killed").iterdir()) == kept  # no result yet
    again = command(*tuning, *SET, "--output", "killed")
    assert "epoch 1/12" not in again.stderr
    assert scores(again) == scores(whole)
    assert not kept[0].exists()
