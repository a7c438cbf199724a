"""What a protocol that trains the network too is given, and the table of such protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning

from fullrank.data.statistics import Pixels
from fullrank.evaluation.model import Model
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.splits import Part
from fullrank.registry import Registry


@dataclass(frozen=True)
class Task:
    """A network to be judged by training it.

    Attributes:
        model: the network; it is left as it is.
        pixels: how pictures are scaled for it.
        train: pictures to learn from.
        test: those that are judged.
        fabric: device, precision and processes.
        workers: processes that decode pictures.
        checkpoint: where a task that is stopped is kept, to go on from when it is called again; None to keep nothing.
        say: takes a line now and then.
        track: passes items on and shows how many of how many are done, and of what.
        layer: whose features a probe takes, see `Tap`; None is the network's own output, or what is published.
    """

    model: Model
    pixels: Pixels
    train: Part
    test: Part
    fabric: lightning.Fabric
    workers: int = 0
    checkpoint: Path | None = None
    say: Callable[[str], None] = print
    track: Callable[[Iterable[Any], int, str], Iterable[Any]] = lambda items, *_: items
    layer: str | None = None


TRAINED: Registry[Callable[..., Result]] = Registry("protocol that trains the network")
