"""What a checkpoint keeps of a run beside its weights: what training cost so far, however often it was stopped."""

import time
import tracemalloc

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from fullrank.training.checkpointing import Checkpointing
from fullrank.training.fit import quiet
from fullrank.training.monitor import Monitor

KEPT = {
    "Checkpointing": {"seconds": 1000.0, "peak_memory": 2**50},
    "Monitor": {"seconds": 10.0, "warnings": [{"step": 1, "message": "Z is collapsing"}]},
}


class Line(lightning.LightningModule):
    """The least that Lightning trains."""

    def __init__(self, weights):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(weights))

    def train_dataloader(self):
        return DataLoader(torch.ones(8, 1))

    def training_step(self, batch):
        return (self.weight[:1] * batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def monitor(folder):
    return Monitor(
        folder / "metrics.csv", every=1, look_every=1, probe=None, probe_every=1, hints={}, say=lambda words: None
    )


def train(folder, steps, *, resume=False, watching=None, weights=1):
    """Train up to so many steps; the callback that saves."""
    saving = Checkpointing(folder / "last.ckpt", minutes=60, record={})
    with quiet():
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, max_steps=steps, callbacks=[watching or monitor(folder), saving],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(Line(weights), ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return saving


def change(folder, **kept):
    """Write other states of the callbacks into the checkpoint; returns those that were there."""
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    states, checkpoint["callbacks"] = checkpoint["callbacks"], kept
    torch.save(checkpoint, folder / "last.ckpt")
    return states


@pytest.mark.parametrize("steps", [4, 2])  # two more, and none: it was killed while it was measured
def test_a_resumed_run_counts_what_its_earlier_parts_cost(tmp_path, steps):
    began = train(tmp_path, 2).began
    states = change(tmp_path, **KEPT)
    assert 0 < states["Checkpointing"]["seconds"] < time.monotonic() - began
    assert states["Checkpointing"]["peak_memory"] > 0
    watching = monitor(tmp_path)
    cost = train(tmp_path, steps, resume=True, watching=watching).cost()
    assert 1000 < cost["seconds"] < 1060
    assert cost["peak_memory"] == 2**50
    assert {"seconds": watching.seconds, "warnings": watching.warnings} == KEPT["Monitor"]


@pytest.mark.parametrize(
    ("took", "minutes", "after"), [(0.0, 5, 15), (0.1, 5, 15), (1.0, 5, 100), (60.0, 5, 300), (60.0, 0, 0)]
)
def test_checkpoints_are_frequent_where_they_cost_little(tmp_path, took, minutes, after):
    saving = Checkpointing(tmp_path / "last.ckpt", minutes, record={})
    saving._took = took
    assert saving.is_due(after)
    assert not saving.is_due(after - 0.001)


def test_a_checkpoint_is_not_held_in_memory_once_more(tmp_path):
    train(tmp_path, 2)
    tracemalloc.start()  # of Python's own memory; tensors have another
    try:
        train(tmp_path, 2, weights=4_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (tmp_path / "last.ckpt").stat().st_size
    assert size > 16_000_000
    assert peak < size / 2


def test_a_checkpoint_that_does_not_say_its_cost_still_resumes(tmp_path):
    train(tmp_path, 2)
    change(tmp_path)
    cost = train(tmp_path, 4, resume=True).cost()
    assert 0 < cost["seconds"] < 60
    assert 0 < cost["peak_memory"] < 2**50
