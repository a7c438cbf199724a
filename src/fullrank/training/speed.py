"""What makes a run fastest on the machine at hand: precision, memory layout, compilation, memory that is kept."""

from __future__ import annotations

import ctypes
import os
import sys
from types import SimpleNamespace
from typing import Any

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, where the C library is glibc and the user has not chosen otherwise.

    Tensors of over 32 MB are otherwise given back to the system and asked for again, page by page, in every step: a
    step of ResNet-18 at batch 128 then takes 1.29 times as long (2,516 against 1,956 ms, two cores, means of two
    runs). Returns whether it is so.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Some versions refuse so high a threshold; the second setting alone would freeze the first at its low start.
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(TRIM_THRESHOLD, 1 << 30))


def choose_speed(settings: SimpleNamespace) -> tuple[bool, str]:
    """Decide in `settings` on the precision and the layout that the user left open.

    Returns whether to compile, which is decided anew on every machine that a run goes on, and a line for the log.

    bfloat16 is chosen where the hardware multiplies it. On such a CPU a run of the embedded set is 1.28 times as fast
    with it; its kNN accuracy differs by less than two runs of one precision do (docs/training.md).
    """
    on_gpu = torch.cuda.is_available() and settings.accelerator != "cpu"
    if settings.precision == "auto":
        settings.precision = "bf16-mixed" if multiplies_bfloat16(on_gpu) else "32-true"
    if settings.channels_last is None:
        on_mps = settings.accelerator != "cpu" and torch.backends.mps.is_available()
        settings.channels_last = not on_mps
    compiles = on_gpu if settings.compile is None else settings.compile
    layout = "channels last" if settings.channels_last else "channels first"
    return compiles, f"precision {settings.precision}, images with {layout}, {'' if compiles else 'not '}compiled"


def multiplies_bfloat16(on_gpu: bool) -> bool:
    """Whether the hardware multiplies bfloat16 itself, faster than float32."""
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and newer
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
