"""Every code block of the README and the docs is run, in the order in which a reader meets them.

Training is cut to two steps, and the embedded set to 500 pictures where a command names no data: the wrapper below
adds the options to the command, and the steps to `fullrank.train`; nothing else changes.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = "--steps 2 --batch_size 16"
SMALL = "--data shapes:N=500"
# Installing and testing is what `.ci/run` does with the README's own words.
ELSEWHERE = ("pip install", "pytest")


def blocks(page):
    """(language, code) of every fenced block; languages other than bash and python are figures to look at."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def write_wrapper(folder):
    """A `fullrank` for the path that trains for a few steps only."""
    wrapper = folder / "bin/fullrank"
    wrapper.parent.mkdir()
    module = f'"{sys.executable}" -m fullrank.cli'
    cases = {
        "*--resume*": "",
        '"reproduce "*': SMALL,
        '"train "*--data*|"train "*--config*': SHORT,
        '"train "*--output*': f"{SHORT} {SMALL}",
        '"train "*': f"{SHORT} {SMALL} --output runs/shapes-vicreg",
        "*": "",
    }
    lines = [f'{case}) {module} "$@" {options} ;;\n' for case, options in cases.items()]
    wrapper.write_text(f'#!/bin/sh\ncase "$1 $*" in\n{"".join(lines)}esac\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)


def write_photos(folder):
    chance = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(260):
        coarse = Image.fromarray(chance.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        coarse.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"photos/{number:03}.png")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """The folder of a reader who follows the pages one after the other."""
    folder = tmp_path_factory.mktemp("desk")
    write_wrapper(folder)
    write_photos(folder)
    return folder


def run(kind, code, desk):
    environment = os.environ | {"PATH": f"{desk}/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    if kind == "python":
        code = re.sub(r"epochs=\d+", "steps=2, batch_size=16", code)
        return subprocess.run([sys.executable, "-c", code], cwd=desk, env=environment, capture_output=True, text=True)
    lines = [line for line in code.splitlines() if not line.startswith(ELSEWHERE)]
    return subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=desk, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_blocks_run(page, desk):
    for kind, code in blocks(page):
        done = run(kind, code, desk)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stderr[-3000:]}"


def test_the_readme_is_tested_at_all():
    assert len(blocks(PAGES[0])) >= 8
