"""Self-supervised methods, one file each; every file in this folder is found by itself."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from fullrank.methods.method import FAMILIES, METHODS, Batch, DataFacts, Method, Optimization, Step
from fullrank.methods.regularizer import Regularizer

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

get, names = METHODS.get, METHODS.names

__all__ = ["FAMILIES", "Batch", "DataFacts", "Method", "Optimization", "Regularizer", "Step", "get", "names"]
