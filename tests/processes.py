"""Real processes that talk through gloo; started once, since starting takes longer than all they are asked."""

import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_distributed
import torch.multiprocessing

Worker = Callable[..., Any]
PATIENCE = 120.0  # seconds for one answer


class Processes:
    """`world` processes of one gloo group, of a thread each."""

    def __init__(self, world: int, folder: Path) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, world, folder), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def run(self, worker: Worker, *arguments: Any) -> list[Any]:
        """What `worker(rank, *arguments)` returns in each process, in the order of their ranks.

        Where one fails all are ended, since the others may wait for it for ever.
        """
        for pipe in self.pipes:
            pipe.send((worker, arguments))
        try:
            answers: dict[int, Any] = {}
            while missing := {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in answers}:
                answered = wait(list(missing), PATIENCE)
                assert answered, f"processes {sorted(missing.values())} gave no answer in {PATIENCE} s"
                for pipe in answered:
                    error, answers[missing[pipe]] = pipe.recv()
                    assert not error, f"process {missing[pipe]}:\n{error}"
        except BaseException:
            for process in self.processes:
                process.kill()
                process.join()
            raise
        return [answers[rank] for rank in range(len(self.pipes))]

    def close(self) -> None:
        if self.alive:
            for pipe in self.pipes:
                pipe.send(None)
        for process in self.processes:
            process.join()


def _serve(pipe: Connection, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch_distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    while (job := pipe.recv()) is not None:
        worker, arguments = job
        try:
            pipe.send(("", worker(rank, *arguments)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
    torch_distributed.destroy_process_group()
