"""Names to things: one line registers a method, a protocol or a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from fullrank.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named things of one kind; a wrong name is an error that names the nearest right ones, and all."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the decorated thing under `name`."""

        def enter(thing: T) -> T:
            if name in self._entries:
                raise KeyError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = thing
            return thing

        return enter

    def get(self, name: str) -> T:
        """The thing called `name`. Raises `InputError` with the names there are when there is none."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries, listed=True)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)
