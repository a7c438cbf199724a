"""What a summary says of the machine."""

import subprocess
import sys

import pytest
import torch

from fullrank.machine import hardware, peak_memory

OWN = "import torch; from fullrank.machine import peak_memory; print(peak_memory(torch.device('cpu')))"
LARGE = f"""
import subprocess, sys
held = bytearray(1_500_000_000)
held[::4096] = b"x" * len(held[::4096])
print(subprocess.run([sys.executable, "-c", {OWN!r}], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lscpu is Linux's")
def test_the_processor_by_the_name_that_the_system_gives_it():
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("Model name:"))
    assert hardware(torch.device("cpu"))["device"] == f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def peak_from(code):
    """What a process of its own prints."""
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_the_peak_is_that_of_this_process_and_not_of_the_one_that_started_it():
    alone, of_a_large_parent = peak_from(OWN), peak_from(LARGE)
    assert alone > 50e6
    assert abs(of_a_large_parent - alone) < 0.2 * alone


def test_the_peak_rises_with_what_is_held():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(before // 4)
    assert peak_memory(torch.device("cpu")) > 1.5 * before
    del held
    assert peak_memory(torch.device("cpu")) > 1.5 * before
