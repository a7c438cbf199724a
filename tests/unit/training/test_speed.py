"""Settings that were left open are decided by the hardware, freed memory is kept, threads wait briefly."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fullrank.training.speed import choose_speed

OPEN = {"accelerator": "cpu", "precision": "auto", "channels_last": None, "compile": None}

SMALL_PAGES = {"NUMPY_MADVISE_HUGEPAGE": "0"}
FAULTS = """
import resource, numpy
from fullrank.training.speed import keep_freed_memory
if not keep_freed_memory():
    print("refused")
    raise SystemExit
def fill():
    numpy.empty(8 << 20).fill(1.0)  # 64 MB, or 16384 pages
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx2": True, "avx512_bf16": False}, "32-true"), ({"avx512_bf16": True}, "bf16-mixed"), ({}, "32-true")],
)
def test_a_cpu_trains_with_channels_last_and_in_bfloat16_where_it_has_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    settings = SimpleNamespace(**OPEN)
    assert choose_speed(settings) == (False, f"precision {precision}, images with channels last, not compiled")
    assert (settings.precision, settings.channels_last) == (precision, True)
    assert settings.compile is None  # another machine may decide otherwise when the run goes on there


def test_what_was_asked_for_stays():
    asked = {"precision": "bf16-mixed", "channels_last": False, "compile": True}
    settings = SimpleNamespace(**OPEN | asked)
    compiles, _ = choose_speed(settings)
    assert compiles
    assert {name: getattr(settings, name) for name in asked} == asked


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory its own way")
@pytest.mark.parametrize("environment", [{}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}])
def test_memory_that_was_freed_is_used_again(environment):
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(
        command, env=os.environ | SMALL_PAGES | environment, capture_output=True, text=True, check=True
    )
    if environment:
        assert done.stdout.strip() == "refused"
    elif done.stdout.strip() == "refused":
        pytest.skip("this glibc takes no threshold of 1 GB")
    else:
        assert int(done.stdout) < 1000


@pytest.mark.parametrize(("environment", "spins"), [({}, "20000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_the_command_says_how_threads_wait_before_torch_is_imported(environment, spins):
    code = "import os, sys; from fullrank.cli import main; main(['--help']); assert 'torch' not in sys.modules; "
    code += "print(os.environ.get('GOMP_SPINCOUNT'))"
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == spins
