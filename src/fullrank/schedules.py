"""Numbers that change over a run - learning rates, weight decay, momentum of encoders - as functions of the step.

One curve covers the authors' codes: a linear warm-up, then half a cosine. They differ in whether the warm-up's last
step already has the peak, where they count from, and how far they stretch the cosine beyond the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fullrank.errors import InputError


@dataclass(frozen=True)
class Progress:
    """Where a run is: the number of the optimiser step from 0, how many there are in all, and in an epoch."""

    step: int = 0
    steps: int = 1
    steps_per_epoch: float = 1.0

    @property
    def share(self) -> float:
        """The share of the run before this step: 0 at the first, below 1 at the last."""
        return self.step / self.steps

    @property
    def epoch(self) -> int:
        """The epoch that this step belongs to, from 0."""
        return int(self.step // self.steps_per_epoch)

    @property
    def epochs(self) -> float:
        """The length of the run in epochs."""
        return self.steps / self.steps_per_epoch


@dataclass(frozen=True)
class Schedule:
    """A factor of the highest value: warm-up, then half a cosine or a staircase.

    With W warm-up steps and T = stretch * (all steps), at step s (counted from `first_step`):

        s <  W: start_factor + (1 - start_factor) s / W       by s / (W - 1) where the warm-up reaches the peak
        s >= W: q + end_factor (1 - q)                        q = (1 + cos(pi (s - W) / (T - W))) / 2

    `end_factor` is reached at s = T, one after the last step, and kept from there on. A run with T <= W stays in
    warm-up.

    Attributes:
        warmup_epochs: length of the warm-up; may be fractional.
        start_factor: factor at the first step of the warm-up.
        end_factor: factor at the end of the cosine.
        reaches_peak: whether the warm-up's last step has the peak already, as numpy.linspace has.
        first_step: the number of the first step; I-JEPA and MSN count from 1.
        stretch: length of the cosine's horizon in runs; 1.25 in MSN.
        per_epoch: whether the factor changes between epochs only, once the warm-up is over; the codes that have it so
            have no warm-up.
        milestones: shares of the run after which the factor is multiplied by `gamma`, in place of the cosine.
        gamma: factor at every milestone.

    Sources: `adjust_learning_rate` in facebookresearch/{vicreg, barlowtwins, directclr, moco, simsiam, mae},
        `cosine_scheduler` in facebookresearch/dino and microsoft/unilm beit, `WarmupCosineSchedule` in
        facebookresearch/{msn, ijepa}, main_swav.py, google-research/simclr model.py, deepmind-research byol
        utils/schedules.py, valeoai/obow solver.py.
    """

    warmup_epochs: float = 10.0
    start_factor: float = 0.0
    end_factor: float = 0.001
    reaches_peak: bool = False
    first_step: int = 0
    stretch: float = 1.0
    per_epoch: bool = False
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if min(self.warmup_epochs, self.start_factor, self.end_factor, self.first_step, self.stretch) < 0:
            raise InputError(f"{self}: expected no negative number")

    def __call__(self, progress: Progress) -> float:
        """The factor for one optimiser step."""
        step: float = progress.step + self.first_step
        warmup = self.warmup_epochs * progress.steps_per_epoch
        if step < warmup:
            last = max(warmup - 1, 1) if self.reaches_peak else warmup
            return self.start_factor + (1 - self.start_factor) * step / last
        if self.milestones:
            passed = sum(progress.step >= round(share * progress.steps, 6) for share in self.milestones)
            return self.gamma**passed
        if self.per_epoch:
            step = max(warmup, progress.epoch * progress.steps_per_epoch + self.first_step)
        total = int(progress.steps * self.stretch)
        if total <= warmup:
            return 1.0
        return cosine(min(1.0, (step - warmup) / (total - warmup)), 1.0, self.end_factor)


def cosine(share: float, start: float, end: float) -> float:
    """Half a cosine from `start` at share 0 to `end` at share 1: BYOL's and DINO's momentum over a run."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def linear(share: float, start: float, end: float) -> float:
    """A straight line from `start` at share 0 to `end` at share 1: I-JEPA's and MSN's momentum."""
    return start + (end - start) * share


def constant(share: float, start: float, end: float) -> float:
    """`start`, whatever the share: MoCo's momentum."""
    return start


Ramp = Callable[[float, float, float], float]  # (share of the run, start, end) -> value
