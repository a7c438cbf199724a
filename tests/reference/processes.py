"""Real processes that talk through gloo; started once, since starting takes longer than all they are asked."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_distributed
import torch.multiprocessing

Worker = Callable[..., dict[str, np.ndarray]]
PATIENCE = 120.0  # seconds for one answer


class Processes:
    """`world` processes of one gloo group."""

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

    def run(self, worker: Worker, *arguments: Any) -> list[dict[str, np.ndarray]]:
        """What `worker(rank, *arguments)` returns in each process, in the order of their ranks."""
        for pipe in self.pipes:
            pipe.send((worker, arguments))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(PATIENCE), f"process {rank} gave no answer in {PATIENCE} s"
            answers.append(pipe.recv())
        return answers

    def close(self) -> None:
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
        pipe.send(worker(rank, *arguments))
    torch_distributed.destroy_process_group()
