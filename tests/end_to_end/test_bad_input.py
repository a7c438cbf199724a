"""What cannot be used is refused in one line that says what to do: exit code 2, no traceback, nothing written."""

import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fullrank import cli
from tests.end_to_end.conftest import TINY

SMALL = ["--backbone", "test_resnet", "--expander", "16-16", "--batch_size", "8", "--steps", "2", "--report", "false"]


def pictures(folder, count=16, size=32, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(chance.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def refused(command, *arguments, words):
    before = sorted(command.folder.rglob("*"))
    line = command.fails(*arguments)
    assert words in line, line
    assert sorted(command.folder.rglob("*")) == before
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nosuch"], "no file or folder 'nosuch'"),
        (["--method", "vicrge"], "did you mean 'vicreg'"),
        (["--backbone", "resnet81"], "did you mean 'resnet"),
        (["--bach_size", "3"], "did you mean 'batch_size'?"),
        (["--method", "simsiam", "--expander", "5"], "option 'expander' is one of vicreg: choose another --method"),
        (["--method", "vicreg", "--queue", "5"], "option 'queue' is one of infomin, moco, mocov2, nnclr and others"),
        (["--batch-size", "many"], "expected int"),
        (["--batch_size", "1"], "at least 2"),
        (["--batch_size", "100000"], "larger than the set"),
        (["--expander", "12-x"], "layer widths"),
        (["--recipe", "shpaes"], "did you mean 'shapes'?"),
        (["--split", "tset"], "did you mean 'test'?"),
        (["--precision", "17"], "precision"),
        (["--epochs", "0"], "above 0"),
        (["--optimizer", "adamm"], "'adam'"),
        (["--regularize.variances", "25"], "variance"),
        (["--regularize.variance", "-1"], "0 or more"),
        (["--accumulate", "2"], "cannot accumulate"),
        (["--views", "[{'szie': 3}]"], "did you mean 'size'?"),
    ],
)
def test_options(tmp_path, monkeypatch, capsys, arguments, words):
    """In this process, as there are many; the command's own start is what all other tests here go through."""
    monkeypatch.chdir(tmp_path)
    code = cli.main(["train", "--data", "shapes:N=256,size=32", "--backbone", "test_resnet", *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fullrank: error: ")]
    assert (code, len(lines)) == (2, 1)
    assert words in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_yaml_key_that_does_not_exist(command):
    (command.folder / "my.yaml").write_text("method: vicreg\nbackbon: resnet18\n")
    refused(command, "train", "--config", "my.yaml", words="did you mean 'backbone'?")


def test_folders_without_pictures(command):
    (command.folder / "empty").mkdir()
    (command.folder / "texts").mkdir()
    (command.folder / "texts/a.txt").write_text("a")
    for name in ("empty", "texts"):
        refused(command, "train", "--data", name, words=name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder(command):
    folder = pictures(command.folder / "locked")
    folder.chmod(0)
    refused(command, "train", "--data", "locked", words="cannot read")
    folder.chmod(0o700)


def test_a_few_broken_files_are_skipped_and_named(command):
    folder = pictures(command.folder / "photos", count=40)
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "004.png").write_bytes(b"")
    (folder / "005.png").write_text("no picture")
    done = command("train", "--data", "photos", *SMALL, "--output", "run")
    assert done.returncode == 0, done.stderr
    assert "3 of 40 pictures cannot be read" in done.stderr
    assert "003.png" in done.stderr


def test_too_many_broken_files_are_an_error(command):
    folder = pictures(command.folder / "photos", count=20)
    for number in range(10):
        (folder / f"{number:03}.png").write_bytes(b"")
    refused(command, "train", "--data", "photos", *SMALL, words="too many")


def test_mixed_sizes_and_modes_train(command):
    folder = pictures(command.folder / "photos", count=12)
    colour = Image.open(folder / "000.png").resize((50, 40))
    for number, mode in enumerate(["P", "CMYK", "RGBA", "LA", "1", "I;16"]):
        image = (
            Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)
            if mode == "I;16"
            else colour.convert(mode)
        )
        image.save(folder / f"mode{number}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
    done = command("train", "--data", "photos", *SMALL, "--output", "run", "--image_size", "32", "--workers", "1")
    assert done.returncode == 0, done.stderr


def test_identical_grey_pictures_are_refused(command):
    folder = command.folder / "grey"
    folder.mkdir()
    for number in range(16):
        Image.new("RGB", (32, 32), (128, 128, 128)).save(folder / f"{number}.png")
    refused(command, "train", "--data", "grey", *SMALL, words="nothing to learn")


def test_archives_that_climb_out(command):
    picture = pictures(command.folder / "some", count=1) / "000.png"
    with zipfile.ZipFile(command.folder / "climbs.zip", "w") as archive:
        archive.write(picture, "../000.png")
    with tarfile.open(command.folder / "links.tar", "w") as archive:
        link = tarfile.TarInfo("000.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    for name in ("climbs.zip", "links.tar"):
        refused(command, "train", "--data", name, *SMALL, words=name)


def test_a_folder_that_holds_another_run(trained):
    command, folder, _ = trained
    config = (folder / "config.yaml").read_bytes()
    line = command.fails("train", *TINY, "--output", "run")
    assert "--resume" in line
    assert "--overwrite" in line
    assert (folder / "config.yaml").read_bytes() == config


def test_a_folder_with_other_files_is_never_deleted(command):
    (command.folder / "letters").mkdir()
    (command.folder / "letters/dear.txt").write_text("dear")
    refused(command, "train", *TINY, "--output", "letters", words="not a run")
    refused(command, "train", *TINY, "--output", "letters", "--overwrite", words="not a run")


def test_resuming_with_other_settings(trained):
    command, _, _ = trained
    assert "started with batch_size 64" in command.fails("train", "--resume", "--output", "run", "--batch_size", "32")


def test_resuming_what_is_not_there(command):
    refused(command, "train", "--resume", "--output", "nothing", words="nothing to resume")


class Opens:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_checkpoint_that_carries_code_is_never_run(trained, tmp_path):
    command, _, _ = trained
    torch.save({"state_dict": {}, "fullrank": Opens(tmp_path / "proof")}, tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Opens(tmp_path / "proof")))
    for name in ("evil.ckpt", "plain.ckpt"):
        command.fails("diagnose", tmp_path / name)
        assert not (tmp_path / "proof").exists()


def test_a_checkpoint_of_something_else(trained, tmp_path):
    command, _, _ = trained
    torch.save({"model": torch.zeros(3)}, tmp_path / "other.ckpt")
    assert "not written by fullrank" in command.fails("diagnose", tmp_path / "other.ckpt")


def test_vectors_that_are_none(command):
    np.save(command.folder / "cube.npy", np.zeros((2, 3, 4)))
    np.save(command.folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (command.folder / "broken.parquet").write_bytes(b"PAR1 no")
    np.save(command.folder / "hollow.npy", np.full((5, 3), np.nan))
    for name in ("cube.npy", "objects.npy", "broken.parquet", "hollow.npy", "nosuch.npy", "words.txt"):
        command.fails("diagnose", name)


def test_whoever_reads_the_output_may_stop_reading(command):
    np.save(command.folder / "vectors.npy", np.random.default_rng(0).normal(size=(500, 8)))
    process = command.start_cold("diagnose", "vectors.npy", "--json")
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 141
    assert "BrokenPipe" not in err


def test_a_full_disk_leaves_the_previous_checkpoint(command):
    """A file system of 3 MB: the run does not fit, says so, and leaves no half-written file."""
    disk = command.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small file system here")
    try:
        line = command.fails("train", *TINY, "--output", "disk/run", "--expander", "512-512-512")
        assert "the disk is full" in line
        assert not list(disk.rglob("*.part"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_read_only_disk(command):
    disk = command.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,ro", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a read-only file system here")
    try:
        assert "read-only" in command.fails("train", *TINY, "--output", "disk/run")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_evaluation_needs_labels_and_a_run(trained, tmp_path):
    command, folder, _ = trained
    flat = pictures(tmp_path / "flat")
    assert "has no labels" in command.fails("evaluate", folder, "--data", flat)
    assert "no model" in command.fails("evaluate", flat)
    assert "did you mean 'knn'" in command.fails("evaluate", folder, "--protocol", "kn")


def test_a_damaged_backbone(trained, tmp_path):
    command, folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    weights = tmp_path / "copy/backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged" in command.fails("embed", tmp_path / "copy", "--out", tmp_path / "vectors.npy")


def test_a_wrong_method_is_told_the_near_ones_and_all(command):
    for arguments in (["methods", "simsam"], ["train", "--method", "simsam"]):
        line = command.fails(*arguments)
        assert "did you mean 'simsiam'" in line
        assert "vicreg" in line
        assert "barlowtwins" in line
