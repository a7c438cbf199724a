"""Protocols that train, in real processes: several of them, and one that is killed."""

import json
import time

import pytest

from tests.unit.data.picture_files import write_folder
from tests.unit.runs.test_evaluate import pictures, squares

SET = ["--data", "shapes:N=400,size=32", "--device", "cpu", "--json"]


def scores(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["scores"]


def test_two_processes_train_the_classifier_that_one_trains(trained):
    """The network is frozen, and the classifier's batch norm sees whole batches."""
    command, folder, _ = trained
    probe = ["evaluate", folder, "--protocol", "linear", "--schedule", "obow places", "--learning_rate", "1"]
    probe += ["--data", "digits", "--epochs", "8", "--device", "cpu", "--json"]
    one = command(*probe, "--output", "one")
    two = command(*probe, "--output", "two", "--devices", "2")
    assert scores(one) == pytest.approx(scores(two), abs=0.6)  # two of 360 pictures on the border
    assert scores(one)["top1"] > 22  # of ten classes
    (kept,) = (command.folder / "two").iterdir()
    assert json.loads(kept.read_text())["scores"] == scores(two)


def test_one_picture_is_judged_by_two_processes(command):
    """One of them has none to look at, and both go on to the next epoch."""
    rows = ["file,label,split", *(f"{n:02}.png,{'dark' if n % 2 else 'bright'},train" for n in range(8))]
    write_folder(
        command.folder / "set", pictures(9) | {"labels.csv": "\n".join([*rows, "08.png,bright,test"]).encode()}
    )
    done = command(
        *["evaluate", "timm:test_resnet", "--pretrained", "false", "--image_size", "32", "--data", "set"],
        *["--protocol", "finetune", "--epochs", "2", "--devices", "2", "--device", "cpu", "--json"],
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_test"] == 1
    assert "epoch 2/2" in done.stderr


def test_two_processes_train_one_detector(trained):
    command, folder, _ = trained
    write_folder(command.folder / "squares", squares(6, 0) | squares(3, 1))
    done = command(
        *["evaluate", folder, "--protocol", "detection", "--data", "squares", "--devices", "2", "--device", "cpu"],
        *["--steps", "2", "--batch_size", "4", "--regions", "8", "--proposals", "8", "--json"],
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["n_train"], result["n_test"]) == (6, 3)
    assert {"box_ap", "mask_ap", "voc_ap50"} <= set(result["scores"])


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
