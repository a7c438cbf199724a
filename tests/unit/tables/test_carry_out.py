"""How a run of a table is started: which GPU it sees; the runs themselves are in the end-to-end tests."""

import sys

import pytest
import torch

from fullrank.tables import carry_out as carrying
from fullrank.tables.carry_out import end_of_log, start
from tests.unit.tables.test_plan import plan_of

SEEN = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS'])"]


@pytest.mark.parametrize(
    ("given", "gpus", "slot", "seen"),
    [
        (None, 2, 0, "0 5"),
        (None, 2, 1, "1 5"),
        ("4,7", 2, 1, "7 5"),
        ("GPU-a,GPU-b", 2, 0, "GPU-a 5"),
        ("3", 1, 0, "3 5"),
        (None, 1, 0, "None 5"),
    ],
)
def test_each_of_several_gpus_has_a_run_of_its_own(tmp_path, monkeypatch, given, gpus, slot, seen):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(carrying, "command_of", lambda folder, job, seed: SEEN)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    plan = plan_of("expander", 0.1)
    assert plan.threads is None  # as where a GPU computes
    running = start(plan, tmp_path, plan.jobs[0], 3, slot)
    assert running.process.wait(60) == 0
    assert end_of_log(tmp_path, f"{plan.jobs[0].name}-seed3").strip() == seen
