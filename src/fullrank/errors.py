"""What a user is told when something that they gave cannot be used."""

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


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist, naming the nearest one that does."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    listing = ", ".join(options) if len(options) <= 12 else f"{len(options)} are known"
    hint = f"did you mean '{near[0]}'?" if near else f"known: {listing}"
    return InputError(f"unknown {kind} '{name}': {hint}")
