"""What the process of one run does beside training: judging, and what stands in its way."""

import json

import pytest

from fullrank import commands
from fullrank.errors import InputError
from fullrank.tables.expand import Job
from fullrank.tables.work import carry_out, is_done, is_trained, judge_key, judged, run_folder

LINEAR, SHARE = {"protocol": "linear"}, {"protocol": "finetune", "percent": 1}
JOB = Job("vicreg", {}, (SHARE, LINEAR), ((0, 0), (0, 1)))


def finished(folder):
    """A run that has come to its end."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("method: vicreg\n")
    (folder / "summary.json").write_text(json.dumps({"finished": True}))
    return folder


def test_a_run_that_was_killed_before_its_summary_is_not_trained(tmp_path):
    (tmp_path / "config.yaml").write_text("method: vicreg\n")
    assert not is_trained(tmp_path)


def test_a_checkpoint_without_settings_is_begun_anew(tmp_path, monkeypatch):
    run = run_folder(tmp_path, JOB, 0)
    run.mkdir(parents=True)
    (run / "last.ckpt").write_bytes(b"half")
    given = []
    monkeypatch.setattr(commands, "train", lambda **options: given.append((options.get("resume"), run.exists())))
    carry_out({}, Job("vicreg", {}, (), ()), run)
    assert given == [(None, False)]


def test_what_cannot_be_judged_leaves_the_rest(tmp_path, monkeypatch):
    asked = []

    def evaluate(run, *, protocol, device, **options):
        asked.append(protocol)
        if protocol == "finetune":
            raise InputError("1 % of the 40 pictures of class 3 is less than one")
        return {"scores": {"top1": 51.0}, "n_train": 8, "n_test": 2, "seconds": 0.1}

    monkeypatch.setattr(commands, "evaluate", evaluate)
    run = finished(run_folder(tmp_path, JOB, 0))
    with pytest.raises(InputError, match="1 % of the 40 pictures"):
        carry_out({}, JOB, run)
    assert judged(run)[judge_key(LINEAR)]["scores"] == {"top1": 51.0}
    assert not is_done(tmp_path, JOB, 0)
    with pytest.raises(InputError):
        carry_out({}, JOB, run)
    assert asked == ["finetune", "linear", "finetune"]  # what is known is not asked again
