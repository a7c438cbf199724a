"""Published recipes of fine-tuning on 1 % and 10 % of ImageNet: learning rates of network and head over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fullrank.schedules import Progress, Schedule

COSINE = Schedule(warmup_epochs=0, end_factor=0.0)
COSINE_BY_EPOCH = Schedule(warmup_epochs=0, end_factor=0.0, per_epoch=True)


def staircase(milestones: tuple[int, ...], epochs: int, gamma: float = 0.2) -> Schedule:
    """The rate times `gamma` from each of the epochs `milestones` on."""
    return Schedule(warmup_epochs=0, milestones=tuple(epoch / epochs for epoch in milestones), gamma=gamma)


@dataclass(frozen=True)
class FineTuning:
    """One recipe: SGD with momentum 0.9 and no weight decay, unless it says otherwise.

    Attributes:
        trunk: highest learning rate of the network.
        head: highest learning rate of the linear classifier.
        schedule: of both, as a factor.
        epochs: length of the run.
        batch_size: images in a step.
        optimizer: sgd or lars.
    """

    trunk: float
    head: float
    schedule: Schedule = COSINE_BY_EPOCH
    epochs: int = 20
    batch_size: int = 256
    optimizer: str = "sgd"

    def rates(self, progress: Progress) -> tuple[float, float]:
        """Learning rates of the network and the head at a step."""
        factor = self.schedule(progress)
        return self.trunk * factor, self.head * factor


def root_scaled(base: float, batch_size: int) -> float:
    """SimCLR v2's learning rate: base * sqrt(batch size)."""
    return base * math.sqrt(batch_size)


# (method, percent of the labels) -> recipe. Where paper and code differ, the code has its own line.
PUBLISHED: dict[tuple[str, int], FineTuning] = {
    ("vicreg", 1): FineTuning(0.03, 0.08),
    ("vicreg", 10): FineTuning(0.01, 0.1),
    ("barlowtwins", 1): FineTuning(0.005, 0.5),
    ("barlowtwins paper", 1): FineTuning(0.002, 0.5, staircase((12, 16), 20)),
    ("barlowtwins paper", 10): FineTuning(0.002, 0.5, staircase((12, 16), 20)),
    ("swav", 1): FineTuning(0.02, 5.0, staircase((12, 16), 20)),
    ("swav", 10): FineTuning(0.01, 0.2, staircase((12, 16), 20)),
    ("obow", 1): FineTuning(0.0002, 0.5, staircase((24, 32), 40), 40),
    ("obow", 10): FineTuning(0.0002, 0.5, staircase((12, 16), 20)),
    ("simclr v2", 1): FineTuning(root_scaled(0.005, 1024), root_scaled(0.005, 1024), COSINE, 60, 1024, "lars"),
}
