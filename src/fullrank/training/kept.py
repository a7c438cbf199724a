"""What a protocol that trains has reached when it is stopped: results that are done, and one half-trained network."""

from __future__ import annotations

import time
from typing import Any

import torch

from fullrank.files import write_atomically
from fullrank.training.task import Task


class Kept:
    """The file of a task, by which it goes on when it is called again.

    Every part of a task - a seed, a variant - has an identity: all that its result depends on. A part of another
    identity is not gone on with.

    Args:
        task: says where the file lies; nowhere, and nothing is kept.
    """

    def __init__(self, task: Task) -> None:
        self._path, self._is_first = task.checkpoint, task.fabric.is_global_zero
        self._state: dict[str, Any] = {"done": {}, "identity": None, "half": {}}
        self._written = time.monotonic()
        if self._path is not None and self._path.is_file():
            self._state = torch.load(self._path, map_location="cpu", weights_only=True)

    @property
    def age(self) -> float:
        """Seconds since something was kept."""
        return time.monotonic() - self._written

    def done(self, identity: str) -> Any:
        """The result of a part; None where it is not done."""
        return self._state["done"].get(identity)

    def half(self, identity: str) -> dict[str, Any] | None:
        """How far a part had come; None where it had not begun."""
        return self._state["half"] if self._state["identity"] == identity else None

    def keep(self, identity: str, half: dict[str, Any]) -> None:
        """Keep a part that is half done."""
        self._write({"done": self._state["done"], "identity": identity, "half": half})

    def finish(self, identity: str, result: Any) -> None:
        """Keep the result of a part."""
        self._write({"done": {**self._state["done"], identity: result}, "identity": None, "half": {}})

    def _write(self, state: dict[str, Any]) -> None:
        self._state, self._written = state, time.monotonic()
        if self._path is not None and self._is_first:
            write_atomically(self._path, lambda file: torch.save(state, file))
