"""What numbers were measured on: versions and hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("fullrank", "torch", "torchvision", "timm", "lightning", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def processor() -> str:
    """The processor, by its model name where Linux tells it, and the widest instructions that torch uses on it."""
    described = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", described.read_text(), re.MULTILINE) if described.exists() else None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that were in use so far: of a GPU by tensors, of other devices by this process.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    # Linux counts in `ru_maxrss` what the process that started this one held at that moment; here it does not.
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    if peak:
        return 1024 * int(peak[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine that the numbers were measured on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
