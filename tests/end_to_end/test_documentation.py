"""Every code block of the README and the docs is run, in the order in which a reader meets them.

Training is cut to two steps, and the embedded set to 500 pictures where a command names no data: `shortened` adds the
options to the command, and the steps to `fullrank.train`; nothing else changes.
"""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.processes import COMMAND, PYTHON, Warm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = ["--steps", "2", "--batch_size", "16"]
SMALL = ["--data", "shapes:N=500"]
# Installing and testing is what `.ci/run` does with the README's own words.
ELSEWHERE = ("pip", "pytest")


def blocks(page):
    """(language, code) of every fenced block; languages other than bash and python are figures to look at."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(code):
    """The commands of a block of shell, in words."""
    lines = code.replace("\\\n", " ").splitlines()
    found = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] not in ELSEWHERE]
    assert all(words[0] == "fullrank" and not {"|", ">", "&&", ";"} & {*words} for words in found), code
    return [words[1:] for words in found]


def shortened(command):
    """The same command on less, of which nothing is said on the page."""
    if command[0] == "reproduce":
        return command + SMALL
    if command[0] != "train" or "--resume" in command:
        return command
    where = [] if "--output" in command else ["--output", "runs/shapes-vicreg"]
    return command + SHORT + ([] if {"--data", "--config"} & {*command} else [*SMALL, *where])


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
    write_photos(folder)
    return folder


def steps(language, code):
    """What a reader does one after the other to follow a block: (kind, what a process is given)."""
    if language == "python":
        return [(PYTHON, re.sub(r"epochs=\d+", "steps=2, batch_size=16", code).splitlines())]
    return [(COMMAND, shortened(words)) for words in commands(code)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_blocks_run(page, desk):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for kind, given in [step for block in blocks(page) for step in steps(*block)]:
        process = Warm(kind, given, desk, environment)
        _, err = process.communicate(240)
        assert process.returncode == 0, f"{page.name}:\n{given}\n{err[-3000:]}"


def test_the_readme_is_tested_at_all():
    assert len(blocks(PAGES[0])) >= 8
