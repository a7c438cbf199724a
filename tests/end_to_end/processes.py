"""Processes of the command, or of Python, that begin where their imports are done.

Importing torch and lightning takes seconds, and there are some two hundred commands to run. One process imports them,
and every command is a fork of it: a process of its own, with its own folder, environment, signals and end.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch

IMPORTED = ["fullrank.commands", "fullrank.training.fit", "fullrank.tables.reproduce", "sklearn.neighbors"]
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(IMPORTED)

COMMAND, PYTHON = "command", "python"


class Warm:
    """What was started in this way, with the parts of `subprocess.Popen` that the tests use.

    Args:
        kind: `COMMAND` or `PYTHON`.
        given: arguments of the command, or the lines of code.
        folder: where it is started.
        environment: all variables that it sees.
    """

    def __init__(self, kind: str, given: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._given = given
        ours, theirs = zip(*(WARM.Pipe(duplex=False) for _ in range(2)), strict=True)
        self._process = WARM.Process(target=_carry_out, args=(kind, given, folder, dict(environment), *theirs))
        self._process.start()
        for end in theirs:
            end.close()
        self._texts = ["", ""]
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in enumerate(ours)]
        for reader in self._readers:
            reader.start()

    def _read(self, which: int, end: Connection) -> None:
        with open(os.dup(end.fileno()), encoding="utf-8") as file:
            end.close()
            self._texts[which] = file.read()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote; raises `subprocess.TimeoutExpired` where it has not ended in so many seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self._given, timeout or 0)
        for reader in self._readers:
            reader.join()
        out, err = self._texts
        return out, err


def _carry_out(
    kind: str, given: list[str], folder: Path, environment: Mapping[str, str], out: Connection, err: Connection
) -> None:
    """Be the command or the code, with its folder, environment, arguments and output.

    What libraries read when they are loaded, such as OMP_NUM_THREADS, is that of the process that imported them.
    """
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    for number, end in ((1, out), (2, err)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if kind == PYTHON:
        exec("\n".join(given), {"__name__": "__main__"})
        return
    sys.argv = ["fullrank", *given]
    from fullrank import cli

    sys.exit(cli.main(given))
