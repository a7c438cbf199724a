"""The real command, in real processes."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from fullrank import cli
from tests.end_to_end.processes import COMMAND, Warm

# A run of a few seconds: tiny pictures, a tiny network.
TINY = ["--data", "shapes:N=256,size=32", "--backbone", "test_resnet", "--expander", "32-32-32"]
TINY += ["--batch_size", "64", "--steps", "12", "--save_minutes", "0"]


class Command:
    """`fullrank` in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.environment = os.environ | threads | {"COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""}
        self.started = []

    def start(self, *arguments):
        """Begin where the imports are done (see `processes`)."""
        self.started.append(Warm(COMMAND, list(map(str, arguments)), self.folder, self.environment))
        return self.started[-1]

    def start_cold(self, *arguments):
        """Begin with nothing, as a user does."""
        return subprocess.Popen(
            [sys.executable, "-m", "fullrank.cli", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self):
        """End what a test that failed left behind: Python would wait for it."""
        for process in self.started:
            process.kill()

    def __call__(self, *arguments):
        # Training on several devices starts the command again, as it was started.
        process = (self.start_cold if "--devices" in arguments else self.start)(*arguments)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def fails(self, *arguments):
        """Run what must be refused: exit code 2, one line on stderr, no traceback; returns the line.

        In this process, as there are many: processes of their own are what all other tests here go through.
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([str(each) for each in arguments])
        assert (code, out.getvalue()) == (2, ""), err.getvalue()
        lines = [line for line in err.getvalue().splitlines() if line.startswith("fullrank: error: ")]
        assert len(lines) == 1, err.getvalue()
        return lines[0]


@pytest.fixture
def command(tmp_path):
    run = Command(tmp_path)
    yield run
    run.end()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished tiny run, made once: (command, folder)."""
    folder = tmp_path_factory.mktemp("trained")
    run = Command(folder)
    process = run.start_cold("train", *TINY, "--output", "run")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return run, folder / "run", subprocess.CompletedProcess(process.args, process.returncode, out, err)
