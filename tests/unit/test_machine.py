"""What a summary says of the machine."""

import subprocess
import sys

import pytest
import torch

from fullrank.machine import hardware


@pytest.mark.skipif(sys.platform != "linux", reason="lscpu is Linux's")
def test_the_processor_by_the_name_that_the_system_gives_it():
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("Model name:"))
    assert hardware(torch.device("cpu"))["device"] == f"{model}, {torch.backends.cpu.get_cpu_capability()}"
