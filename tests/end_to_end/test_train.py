"""`fullrank train` from start to end: what it prints, what it leaves, how it stops and goes on."""

import json
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
import safetensors
import timm
import torch
import yaml
from PIL import Image

import fullrank
from fullrank.data import open_pictures
from fullrank.data.statistics import Pixels
from fullrank.evaluation.features import Pictures, normalise
from fullrank.runs.build import build_method, facts_of
from tests.end_to_end.conftest import TINY, Command

PARTS = {"config.yaml", "last.ckpt", "backbone.safetensors", "metrics.csv", "summary.json", "report.html"}


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], msg=lambda text, key=key: f"{key}: {text}", **tolerance)


def test_a_run_holds_its_parts(trained):
    _, folder, done = trained
    assert {path.name for path in folder.iterdir()} >= PARTS
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"]
    assert {"trained", "untrained", "raw_pixels", "chance"} <= summary["knn"].keys()
    assert summary["verdict"].keys() == {"Y", "Z"}
    assert summary["steps"] == 12
    assert summary["epochs"] == 3  # four steps of 64 pictures go through 256
    assert "kNN accuracy" in done.stdout
    assert str(folder.name) in done.stdout
    for name in ("Y", "Z"):
        assert summary["verdict"][name]["verdict"] in done.stdout


def test_metrics_have_terms_and_live_measures(trained):
    _, folder, _ = trained
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    wanted = "step epoch loss invariance variance covariance learning_rate images_per_second Y_effective_rank Z_std knn"
    assert set(wanted.split()) <= set(header.split(","))
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 13))
    # The embeddings are looked at in the first row, every tenth step, and at the end.
    column = header.split(",").index("Z_std")
    assert [int(row.split(",")[0]) for row in rows if row.split(",")[column]] == [1, 10, 12]


def test_the_scale_of_z_is_not_judged_before_batch_norm_has_settled(trained):
    _, folder, _ = trained
    verdicts = json.loads((folder / "summary.json").read_text())["verdict"]
    assert "the scale of Z was not judged" in verdicts["Z"]["remarks"][-1]
    assert not [remark for verdict in verdicts.values() for remark in verdict["remarks"] if "target_std" in remark]


def test_the_scale_of_stored_vectors_is_judged_where_their_loss_asks_for_one(command):
    np.save(command.folder / "small.npy", 0.005 * np.random.default_rng(0).normal(size=(500, 32)))
    found = [
        json.loads(command("diagnose", "small.npy", "--json", *more).stdout) for more in ([], ["--target_std", "1"])
    ]
    assert [one["verdict"] for one in found] == ["healthy", "complete collapse"]


@pytest.mark.parametrize(("options", "drawn"), [([], True), (["--method", "barlowtwins", "--projector", "8-8"], False)])
def test_curves_of_healthy_runs_are_those_of_the_same_method(command, options, drawn):
    small = ["--data", "digits", "--steps", "2", "--batch_size", "16", "--report", "false", "--output", "run"]
    done = command("train", *small, *options)
    assert done.returncode == 0, done.stderr
    assert (command.folder / "run/reference.json").exists() == drawn


def test_the_untrained_spectrum_is_that_of_the_first_weights(trained):
    _, folder, _ = trained
    run = fullrank.load_run(folder)
    method, _ = build_method(run.settings, facts_of(run.input))
    pictures = Pictures(open_pictures("shapes:N=256,size=32"), Pixels.from_dict(run.input["pixels"]), 32)
    with torch.no_grad():
        batch = normalise(torch.cat([images for _, images in pictures.chunks()]), pictures.pixels)
        outputs = dict(zip("YZ", method.eval().embed(batch), strict=True))
    arrays = np.load(folder / "diagnostics.npz")
    for name, vectors in outputs.items():
        expected = np.linalg.svd((vectors - vectors.mean(0)).double().numpy(), compute_uv=False)
        np.testing.assert_allclose(arrays[f"untrained_{name}_spectrum"], expected, rtol=1e-4, atol=1e-4 * expected[0])
        assert abs(arrays[f"{name}_spectrum"] - expected).max() > 0.01 * expected[0]


def test_only_the_pictures_that_were_included_are_used(command):
    chance = np.random.default_rng(0)
    for folder in ("all/first", "all/second"):
        (command.folder / folder).mkdir(parents=True)
        for number in range(24):
            image = chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(image).save(command.folder / folder / f"{number}.png")
            np.save(command.folder / folder / f"{number}.npy", chance.random((13, 32, 32), dtype=np.float32))
    train = ["--backbone", "test_resnet", "--expander", "16-16", "--batch_size", "16", "--steps", "2"]
    done = command("train", "--data", "all", "--include", "*.png", *train, "--report", "false", "--output", "run")
    assert done.returncode == 0, done.stderr
    for arguments in (["evaluate", "run"], ["diagnose", "run"], ["embed", "run", "--out", "own.npz"]):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
    done = command("embed", "run", "--data", "all", "--include", "*/1*.png", "--out", "some.npz")
    assert done.returncode == 0, done.stderr
    own, some = (np.load(command.folder / name)["names"] for name in ("own.npz", "some.npz"))
    assert len(own) == 48
    assert len(some) == 22
    assert all(name.endswith(".png") for name in own)


def test_timm_opens_the_backbone(trained):
    _, folder, _ = trained
    model = timm.create_model("test_resnet", num_classes=0, checkpoint_path=folder / "backbone.safetensors")
    trained_weights = {
        key.removeprefix("method.network.branch.backbone."): value for key, value in weights(folder).items()
    }
    assert torch.equal(model.state_dict()["layer4.0.conv2.weight"], trained_weights["layer4.0.conv2.weight"])
    with safetensors.safe_open(folder / "backbone.safetensors", "pt") as file:
        record = json.loads(file.metadata()["fullrank"])
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        is_same = torch.allclose(model.eval()(images), fullrank.load_run(folder).backbone(images), atol=1e-4)
    assert record["as_trained"] is is_same is True


def test_timm_opens_a_backbone_that_was_built_otherwise(command):
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    given = [part for name, value in options.items() for part in (f"--backbone_options.{name}", value)]
    small = ["--data", "shapes:N=64,size=32", "--steps", "2", "--batch_size", "16", "--report", "false"]
    done = command(
        "train", *small, "--recipe", "default", "--method", "beit", "--codes", "8", *given, "--output", "run"
    )
    assert done.returncode == 0, done.stderr
    path = command.folder / "run/backbone.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["fullrank"])
    assert options.items() <= record["creation"].items()
    assert record["as_trained"] is True
    model = timm.create_model(record["architecture"], **record["creation"], checkpoint_path=path).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), fullrank.load_run(command.folder / "run").backbone(images))
    assert "depht" in command.fails("train", *small, "--method", "vicreg", "--backbone_options.depht", "1")


def test_the_config_trains_again_to_the_same_weights(trained, tmp_path):
    _, folder, _ = trained
    done = Command(tmp_path)("train", "--config", folder / "config.yaml", "--output", "again")
    assert done.returncode == 0, done.stderr
    assert_same_weights(weights(folder), weights(tmp_path / "again"), rtol=0, atol=0)


def test_killed_at_any_step_and_resumed_ends_bit_for_bit_the_same(trained, command):
    _, folder, _ = trained
    process = command.start("train", *TINY, "--output", "killed", "--report", "false")
    metrics, checkpoint = (command.folder / "killed" / name for name in ("metrics.csv", "last.ckpt"))
    stop_at = random.Random().randint(1, 8)
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > stop_at):
        time.sleep(0.01)
    while process.poll() is None and not checkpoint.exists():  # of the first step, a moment after its row
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (command.folder / "killed/backbone.safetensors").exists(), "it was killed too late to say anything"
    done = command("train", "--resume", "--output", "killed")
    assert done.returncode == 0, done.stderr
    assert_same_weights(weights(folder), weights(command.folder / "killed"), rtol=0, atol=0)
    rows = metrics.read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 13))


def test_killed_while_it_was_measured_it_is_measured_when_resumed(trained, command):
    _, folder, _ = trained
    run = fullrank.load_run(shutil.copytree(folder, command.folder / "run"))
    before = run.summary
    run.write_summary({name: before[name] for name in ("name", "settings", "input")} | {"finished": False})
    (run.folder / "backbone.safetensors").unlink()
    done = command("train", "--resume", "--output", "run")
    assert done.returncode == 0, done.stderr
    after = run.summary
    assert after["finished"]
    assert {name: after[name] for name in ("steps", "knn", "verdict")} == {
        name: before[name] for name in ("steps", "knn", "verdict")
    }
    assert after["seconds"] >= 0.9 * before["seconds"]  # of training, though there was nothing left to train
    assert (run.folder / "backbone.safetensors").read_bytes() == (folder / "backbone.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_how_to_resume(trained, command, number):
    _, folder, _ = trained
    process = command.start("train", *TINY, "--output", "stopped", "--save_minutes", "60")
    metrics = command.folder / "stopped/metrics.csv"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "fullrank train --resume --output stopped" in err
    assert "Traceback" not in err
    step = re.search(r"stopped at step (\d+) of 12", err).group(1)
    done = command("train", "--resume", "--output", "stopped")
    assert done.returncode == 0, done.stderr
    assert f"going on after step {step}" in done.stderr
    assert_same_weights(weights(folder), weights(command.folder / "stopped"), rtol=0, atol=0)


def test_a_kill_while_saving_leaves_the_previous_checkpoint(trained, command):
    process = command.start("train", *TINY, "--output", "run", "--steps", "400", "--report", "false")
    checkpoint, part = command.folder / "run/last.ckpt", command.folder / "run/.last.ckpt.part"
    while process.poll() is None and not (checkpoint.exists() and part.exists()):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] >= 1
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_two_processes_with_different_data_equal_one(command):
    # Whole pictures, flipped or not: views whose float32 values do not depend on the size of the batch.
    view = "{scale: [1, 1], ratio: [1, 1], jitter_probability: 0, grayscale: 0}"
    double = [
        *TINY,
        "--views",
        f"[{view}, {view}]",
        "--optimizer",
        "lars",
        "--learning_rate",
        "0.3",
        "--precision",
        "64-true",
        "--accelerator",
        "cpu",
        "--report",
        "false",
    ]
    one = command("train", *double, "--devices", "1", "--output", "one")
    two = command("train", *double, "--devices", "2", "--strategy", "ddp", "--output", "two")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert_same_weights(weights(command.folder / "one"), weights(command.folder / "two"), rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_not_finite_stops_the_run(command):
    line = command.fails("train", *TINY, "--optimizer", "sgd", "--learning_rate", "1e30", "--warmup_epochs", "0")
    assert "training stopped at step" in line
    assert "--learning_rate" in line


def test_a_warm_up_that_takes_most_of_the_run_is_told(command):
    short = ["train", "--data", "shapes:N=64,size=32", "--batch_size", "32", "--report", "false", "--overwrite"]
    for epochs, warmup, words in (
        ("2", "10", "warm-up: 10 epochs of 2, so the learning rate reaches its highest never: give a shorter"),
        ("2", "1.5", "warm-up: 1.5 epochs of 2, so the learning rate reaches its highest late: give a shorter"),
        ("2", "1", ""),
    ):
        done = command(*short, "--epochs", epochs, "--warmup_epochs", warmup, "--output", "run")
        assert done.returncode == 0, done.stderr
        assert words in done.stderr
        assert ("warm-up:" in done.stderr) is bool(words)


def test_python_does_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fullrank.train(
        data=np.random.default_rng(0).integers(0, 255, (96, 32, 32, 3), dtype=np.uint8),
        method="barlowtwins",
        backbone="test_resnet",
        projector="16-16",
        batch_size=32,
        steps=3,
        logger="none",
    )
    assert run.summary["finished"]
    assert run.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 96)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["method"] == "barlowtwins"
    verdicts = fullrank.diagnose(
        run.embed(
            data=np.zeros((8, 32, 32, 3), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None],
            out="vectors.npy",
        )
    )
    assert set(verdicts) == {"vectors"}
