"""Self-supervised methods, one file each; every file in this folder is found by itself."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from fullrank.methods.method import METHODS, Batch, Method, Optimization, Step

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

get, names = METHODS.get, METHODS.names

__all__ = ["Batch", "Method", "Optimization", "Step", "get", "names"]
