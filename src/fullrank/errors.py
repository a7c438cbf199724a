"""What a user is told when something that they gave cannot be used, or when they asked for the end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: one line saying what was given, what was expected and what to do.

    The command prints the message without a traceback and exits with 2; Python callers get an
    ordinary `ValueError`.
    """


class NotFinite(InputError):
    """A loss that is NaN or infinite: in training not what was given is at fault, but how the run went."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end: words say what was saved, and the exit status of the command which signal it was."""

    def __init__(self, words: str, signal: int) -> None:
        super().__init__(words)
        self.signal = signal


def one_line(message: str) -> str:
    """A message without line breaks; of one that a worker process sent, what it says after its traceback."""
    if message.startswith("Caught "):
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())


def unknown(kind: str, name: str, known: Iterable[str], *, listed: bool = False) -> InputError:
    """The error for a name that does not exist, naming the nearest ones that do.

    All of them follow where none is near and they are few, or with `listed`.
    """
    options = {option.lower(): option for option in sorted(known)}
    near = difflib.get_close_matches(name.lower(), options, n=3 if listed else 1, cutoff=0.5)
    words = [f"did you mean {' or '.join(repr(options[each]) for each in near)}?"] if near else []
    if listed or not near:
        few = listed or len(options) <= 12
        words.append(f"known: {', '.join(options.values())}" if few else f"{len(options)} are known")
    return InputError(f"unknown {kind} '{name}': {' '.join(words)}")
