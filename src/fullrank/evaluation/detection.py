"""Published recipes of detection on VOC and COCO: steps, learning rates, sizes of pictures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fullrank.errors import unknown


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        steps: of the optimiser.
        batch_size: pictures in a step.
        learning_rate: at 16 pictures a step.
        warmup: steps in which it rises.
        warmup_factor: where it starts.
        drops: shares of the run after which it is a tenth.
        weight_decay: of all weights.
        rpn_weight: of the proposals' losses.
        sides: shorter sides of pictures in training, one drawn each time; pixels.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 0.02
    warmup: int = 100
    warmup_factor: float = 0.001
    drops: tuple[float, ...] = (0.75, 11 / 12)
    weight_decay: float = 1e-4
    rpn_weight: float = 1.0
    sides: tuple[int, ...] = tuple(range(480, 801, 32))

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rate = self.learning_rate * self.batch_size / 16 * 0.1 ** sum(step >= drop * self.steps for drop in self.drops)
        warmup = min(self.warmup, self.steps // 4)
        if step >= warmup:
            return rate
        return rate * (self.warmup_factor + (1 - self.warmup_factor) * step / warmup)


# Published settings: facebookresearch/moco detection (C4 on VOC), InfoMin's FPN on COCO, and those of VICReg's paper.
PUBLISHED: dict[str, Training] = {
    "moco voc": Training(24_000),
    "barlowtwins voc": Training(24_000, learning_rate=0.1, warmup=1000, warmup_factor=0.333),
    "vicreg voc": Training(24_000, learning_rate=0.1, warmup=1000, warmup_factor=0.333, rpn_weight=0.2),
    "infomin coco": Training(90_000, warmup=1000, drops=(2 / 3, 8 / 9), sides=tuple(range(640, 801, 32))),
    "vicreg coco": Training(
        90_000, learning_rate=0.04, warmup=50, drops=(2 / 3, 8 / 9), sides=tuple(range(640, 801, 32))
    ),
}


def published_training(recipe: str, steps: int | None, batch_size: int | None, learning_rate: float | None) -> Training:
    """The published settings, with what is given in their place. Raises `InputError` for an unknown recipe."""
    if recipe not in PUBLISHED:
        raise unknown("detection recipe", recipe, PUBLISHED, listed=True)
    given: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    return dataclasses.replace(PUBLISHED[recipe], **{name: value for name, value in given.items() if value is not None})
