"""Self-supervised pre-training of joint-embedding models that measures, explains and prevents collapse."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullrank import collapse, data, losses, views
    from fullrank.commands import check, compare, diagnose, embed, evaluate, export, reproduce, train
    from fullrank.errors import InputError
    from fullrank.runs.folder import Run, load_run

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ("check", "compare", "diagnose", "embed", "evaluate", "export", "reproduce", "train"), "fullrank.commands"
    ),
    **dict.fromkeys(("Run", "load_run"), "fullrank.runs.folder"),
    "InputError": "fullrank.errors",
}
_ROOMS = ("collapse", "data", "evaluation", "losses", "methods", "networks", "training", "views")

__all__ = [
    "InputError",
    "Run",
    "check",
    "collapse",
    "compare",
    "data",
    "diagnose",
    "embed",
    "evaluate",
    "export",
    "load_run",
    "losses",
    "reproduce",
    "train",
    "views",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import fullrank` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"fullrank.{name}")
    raise AttributeError(f"module 'fullrank' has no attribute '{name}'")
