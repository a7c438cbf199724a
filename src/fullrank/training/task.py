"""What a protocol that trains the network too is given, and the table of such protocols."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning

from fullrank.data.statistics import Pixels
from fullrank.evaluation.model import Model
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.splits import Part
from fullrank.evaluation.taps import Pooling
from fullrank.registry import Registry
from fullrank.runs.evaluate import computing


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
        pooling: of them.
        precision: of the network: 32 or bf16.
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
    pooling: Pooling = "auto"
    precision: str = "32"

    def computing(self) -> AbstractContextManager[None]:
        """The network's precision."""
        return computing(self.precision, self.fabric.device)

    def identity(self, chosen: Sequence[str]) -> str:
        """A digest of what a result depends on beside the protocol's settings; `chosen` are the names to learn from."""
        said: list[Any] = [self.model.weights, self.model.image_size, sorted(self.pixels.to_dict().items())]
        said += [self.layer, self.pooling, self.precision]
        said += [self.train.source.name, list(chosen)]
        said += [self.test.source.name, [self.test.source.names[place] for place in self.test.indices]]
        for part in (self.train, self.test):
            said.append(None if part.source.known is None else hashlib.blake2b(part.known.tobytes()).digest())
        return hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()


TRAINED: Registry[Callable[..., Result]] = Registry("protocol that trains the network")
