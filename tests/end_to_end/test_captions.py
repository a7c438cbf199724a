"""Captions from start to end: the embedded set, a folder with a file of captions, resuming, and what is refused."""

import json
import shutil
import signal
import time

import pytest
import torch

import fullrank
from fullrank import cli
from fullrank.data import open_pictures
from fullrank.errors import InputError
from tests.end_to_end.conftest import Command
from tests.end_to_end.test_bad_input import pictures
from tests.end_to_end.test_train import assert_same_weights, weights

SMALL = ["--data", "shapes:N=128", "--backbone", "test_resnet", "--batch_size", "32", "--save_minutes", "0"]
WIDTH = ["--backbone2", "gru:width=16,embedding=8"]
VSE = [*SMALL, "--method", "vse", *WIDTH, "--steps", "24", "--report", "false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run on pictures and captions, made once: (command, run)."""
    command = Command(tmp_path_factory.mktemp("captions"))
    done = command("train", *VSE, "--output", "run", "--report", "true")
    assert done.returncode == 0, done.stderr
    assert "640 captions" in done.stderr
    return command, fullrank.load_run(command.folder / "run")


def test_an_epoch_goes_through_every_pair(trained):
    _, run = trained
    last = (run.folder / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert float(last[1]) == pytest.approx(24 * 32 / 640, abs=1e-3)
    assert {"image_to_text", "text_to_image"} <= set((run.folder / "metrics.csv").read_text().split("\n")[0].split(","))
    assert run.summary["finished"]
    assert run.input["samples"] == 128
    assert (run.folder / "report.html").is_file()


def test_the_tokenizer_is_kept_and_captions_are_embedded(trained):
    _, run = trained
    assert torch.load(run.folder / "last.ckpt", weights_only=True)["fullrank"]["tokenizer"] == (
        run.folder / "tokenizer.json"
    ).read_text(encoding="utf-8")
    source = open_pictures("shapes:N=128")
    y, z = run.embed_captions(source.captions[0])
    assert (y.shape, z.shape) == ((5, 16), (5, 16))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))
    # Words of any company: the same as alone.
    torch.testing.assert_close(run.embed_captions([source.captions[0][3]])[1][0], z[3])


def test_killed_and_resumed_ends_bit_for_bit_the_same(trained, command):
    _, run = trained
    process = command.start("train", *VSE, "--output", "killed")
    checkpoint = command.folder / "killed/last.ckpt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (command.folder / "killed/backbone.safetensors").exists(), "it was killed too late to say anything"
    before = (command.folder / "killed/tokenizer.json").read_text()
    done = command("train", "--resume", "--output", "killed")
    assert done.returncode == 0, done.stderr
    assert_same_weights(weights(run.folder), weights(command.folder / "killed"), rtol=0, atol=0)
    assert (command.folder / "killed/tokenizer.json").read_text() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "vicreg", "--expander", "16-16", *WIDTH],
        ["--method", "barlowtwins", "--projector", "16-16", "--backbone2", "transformer:width=16,layers=1"],
    ],
    ids=["vicreg", "barlowtwins"],
)
def test_methods_of_two_branches_take_captions(command, options):
    done = command("train", *SMALL, *options, "--steps", "3", "--report", "false", "--output", "run")
    assert done.returncode == 0, done.stderr
    run = fullrank.load_run(command.folder / "run")
    assert run.summary["finished"]
    assert run.embed_captions(["a red disc", "nothing"])[1].shape == (2, 16)
    assert run.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 96)


@pytest.mark.parametrize("placement", ["memory", "workers"])
def test_a_folder_with_captions(command, placement, caplog):
    folder = pictures(command.folder / "set/images", 24)
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[3]).write_bytes(b"broken")
    rows = [f"{name}#{k}\tpicture of number {n}" for n, name in enumerate(names[:20]) for k in range(n % 3)]
    (command.folder / "words.token").write_text("\n".join(rows))
    train = ["train", "--data", "set", "--captions", "words.token", "--method", "vse", *WIDTH, "--steps", "4"]
    train += ["--backbone", "test_resnet", "--batch_size", "8", "--report", "false", "--placement", placement]
    done = command(*train, "--workers", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    assert "11 of 24 pictures have no captions and are left out" in done.stderr
    summary = json.loads((command.folder / "run/summary.json").read_text())
    assert summary["settings"]["captions"] == "words.token"
    for arguments in (["diagnose", "run"], ["embed", "run", "--out", "vectors.npz"]):
        assert command(*arguments).returncode == 0


def test_python_takes_captions_with_the_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_pictures("digits")
    source.captions = [[f"the digit {source.classes[label]}"] for label in source.labels]
    run = fullrank.train(
        data=source,
        method="vse",
        backbone="test_resnet",
        backbone2="gru:width=8",
        batch_size=16,
        steps=2,
        logger="none",
    )
    assert run.embed_captions(["the digit 3"])[1].shape == (1, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "digits", "--method", "vse"], "digits[train] has no captions: name their file with --captions"),
        (["--method", "byol", "--backbone2", "gru"], "byol cannot take captions: the momentum encoder"),
        (["--method", "vse", "--backbone2", "resnet18"], "unknown text encoder of vse 'resnet18': known: gru, hf:NAME"),
        (["--method", "vicreg", "--backbone2", "gru:wide=3"], "unknown size of gru 'wide': did you mean 'width'?"),
        (["--method", "vicreg", "--backbone2", "gru", "--branches", "shared"], "leave out --branches shared"),
        (["--method", "vicreg", "--captions", "c.csv"], "captions are of no use to vicreg alone: add --backbone2 gru"),
        (["--method", "vse", "--captions", "c.csv"], "captions 'c.csv': no file of this name"),
        (["--method", "vse", "--measure", "angle"], "option measure is 'angle': expected one of"),
        (["--method", "vse", "--accumulate", "2"], "vse cannot accumulate"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in options else ["--data", "shapes:N=64"]
    assert cli.main(["train", *data, *options, "--steps", "2", "--batch_size", "16", "--output", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("fullrank: error: ")
    assert words in line, line
    assert not (tmp_path / "run").exists()


def test_a_run_without_captions_embeds_none(trained, command):
    _, run = trained
    copy = fullrank.load_run(shutil.copytree(run.folder, command.folder / "copy"))
    (copy.folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"was trained without captions: it has no tokenizer.json"):
        copy.embed_captions(["a disc"])
