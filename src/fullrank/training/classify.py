"""A classifier on a network, trained on labelled pictures, judged after every epoch, and gone on with when stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullrank import distributed
from fullrank.data.loading import MEMORY_LIMIT, choose_placement, load_in_memory
from fullrank.data.memory import available_memory
from fullrank.data.source import Chosen
from fullrank.errors import InputError
from fullrank.evaluation.features import Pictures, evaluating, normalise
from fullrank.evaluation.model import digest_of
from fullrank.networks.small_maps import widen_small_maps
from fullrank.schedules import Progress
from fullrank.training.answers import answers_of
from fullrank.training.batches import Batches, Plan, mix
from fullrank.training.feed import Feed, MemoryFeed, WorkerFeed
from fullrank.training.kept import Kept
from fullrank.training.task import Task
from fullrank.views import Augment, Recipe, supervised_views

HEAD_STD = 0.01  # of a classifier's first weights, in every code that is followed


def linear_head(width: int, classes: int) -> nn.Linear:
    """Weights from N(0, 0.01), no bias at first."""
    head = nn.Linear(width, classes)
    nn.init.normal_(head.weight, std=HEAD_STD)
    nn.init.zeros_(head.bias)
    return head


class ClassifierRun:
    """One run: random crops and flips, cross-entropy (`Answers`), the test pictures after every epoch.

    Args:
        task: pictures, device, and where a stopped run is kept.
        pictures: those to learn from.
        network: images -> logits of all classes.
        optimizer: of what learns in it.
        set_rates: sets the learning rates for a step.
        epochs: passes over the pictures.
        batch_size: in a step, at the most.
        seed: of order and crops.
        frozen: what stays in evaluation mode.
        views: image size -> the crops.
    """

    def __init__(
        self,
        task: Task,
        pictures: Chosen,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        set_rates: Callable[[torch.optim.Optimizer, Progress], None],
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        frozen: nn.Module | None = None,
        views: Callable[[int], Recipe] = supervised_views,
    ) -> None:
        if epochs < 1:
            raise InputError(f"epochs is {epochs}: expected 1 or more")
        fabric = task.fabric
        rows = min(batch_size, len(pictures))
        rows -= rows % fabric.world_size
        if not rows:
            raise InputError(
                f"{min(batch_size, len(pictures))} pictures a step are none for {fabric.world_size} devices"
            )
        self.batches = Plan(len(pictures), rows, epochs * (len(pictures) // rows), seed)
        self.task, self.set_rates, self.seed, self.epochs, self.frozen = task, set_rates, seed, epochs, frozen
        self.answers, self.classes = answers_of(pictures), len(pictures.classes)
        self.notes = self.answers.notes(task.test.known)
        recipe = views(task.model.image_size)
        self.identity = f"{task.identity(pictures.names)} {recipe} {self._identity(network, optimizer)}"
        widen_small_maps(network)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.feed, self.labels = _feed(pictures, task, recipe, seed)
        self.feed.to(fabric.device)
        own = task.test.indices[fabric.global_rank :: fabric.world_size]
        self.test = Pictures(task.test.source, task.pixels, task.model.image_size, own)
        self.judged = len(task.test.indices)  # those of them that can be read
        self.by_class: dict[str, float] = {}  # the first score of every class when it was judged last
        self._decoded: list[tuple[np.ndarray, Tensor]] = []

    def _identity(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> str:
        """Of first weights, order and rates."""
        rates = []
        for step in range(0, self.batches.batches, max(1, self.batches.batches // 10)):
            self.set_rates(optimizer, Progress(step, self.batches.batches, self.batches.batches_per_epoch))
            rates.append([(group["lr"], group["weight_decay"]) for group in optimizer.param_groups])
        return f"{digest_of(network)} {dataclasses.asdict(self.batches)} {rates}"

    def run(self) -> dict[str, float]:
        """Train to the end and return the scores of the last epoch, with the best of all by the quoted score."""
        kept = Kept(self.task)
        if found := kept.done(self.identity):
            scores, self.by_class, self.judged = found
            return scores
        step, history = self._resume(kept)
        per_epoch = self.batches.batches_per_epoch
        world, rank = self.task.fabric.world_size, self.task.fabric.global_rank
        loader = self.feed.loader(Batches(self.batches, start=step, rank=rank, world_size=world))
        for loaded in self.task.track(loader, self.batches.batches - step, f"training, seed {self.seed}"):
            torch.manual_seed(mix(self.seed, step))
            self._step(loaded, Progress(step, self.batches.batches, per_epoch))
            step += 1
            if step % per_epoch == 0:
                history.append(self.judge())
                found = f"{self.answers.words} {history[-1][self.answers.quoted]:.2f} %"
                self.task.say(f"seed {self.seed}  epoch {len(history)}/{self.epochs}  {found}")
                kept.keep(self.identity, self._state(step, history))
        scores = {**history[-1], "best": max(each[self.answers.quoted] for each in history)}
        kept.finish(self.identity, (scores, self.by_class, self.judged))
        return scores

    def _step(self, loaded: Any, progress: Progress) -> None:
        self.set_rates(self.optimizer, progress)
        self.network.train()
        if self.frozen is not None:
            self.frozen.eval()
        batch = self.feed.views(loaded)
        labels = self.labels[batch.index.cpu()].to(self.task.fabric.device)
        with self.task.computing():
            logits = self.network(batch.views[0])
        loss = self.answers.loss(logits.float(), labels)
        if not loss.isfinite():
            raise InputError(f"the loss is {loss.item()} at step {progress.step + 1}: lower the learning rates")
        self.optimizer.zero_grad()
        self.task.fabric.backward(loss)
        self.optimizer.step()

    @torch.no_grad()
    def judge(self) -> dict[str, float]:
        """Scores on the test pictures, of which every process looks at its share."""
        answers: Any = self.test.source.known
        # Past the wrapper of several processes, whose forward passes are in step: shares differ, and may be empty.
        network = self.network.module
        distributed.share_buffers(network)
        known = [torch.from_numpy(answers[:0]).long()]
        kept = [self.answers.keep(torch.empty(0, self.classes), known[0])]
        with evaluating(network):
            for part, images in self._test_chunks():
                with self.task.computing():
                    logits = network(normalise(images.to(self.task.fabric.device), self.test.pixels))
                known.append(torch.from_numpy(answers[part]).long())
                kept.append(self.answers.keep(logits.float().cpu(), known[-1]))
        shares = distributed.gather_objects((torch.cat(kept), torch.cat(known)))
        kept, known = ([share[place] for share in shares] for place in (0, 1))
        self.judged = sum(map(len, known))
        scores, self.by_class = self.answers.judge(torch.cat(kept), torch.cat(known))
        return scores

    def _test_chunks(self) -> Iterable[tuple[np.ndarray, Tensor]]:
        """The test pictures, decoded once where they fit in memory: they are looked at after every epoch."""
        size = self.test.image_size
        need = 4 * len(self.test.indices) * self.test.pixels.channels * size * size
        if need > min(MEMORY_LIMIT, available_memory() // 4):
            return self.test.chunks()
        self._decoded = self._decoded or list(self.test.chunks())
        return self._decoded

    def _state(self, step: int, history: list[dict[str, float]]) -> dict[str, Any]:
        states = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {"step": step, "history": history, "by_class": self.by_class, "judged": self.judged, **states}

    def _resume(self, kept: Kept) -> tuple[int, list[dict[str, float]]]:
        """Step and scores so far, of the same run that was stopped."""
        half = kept.half(self.identity)
        if half is None:
            return 0, []
        self.network.load_state_dict(half["network"])
        self.optimizer.load_state_dict(half["optimizer"])
        self.by_class, self.judged = half["by_class"], half["judged"]
        return half["step"], half["history"]


def _feed(pictures: Chosen, task: Task, recipe: Recipe, seed: int) -> tuple[Feed, Tensor]:
    """What gives random crops of the pictures, and the label of each that it gives."""
    pixels, size = task.pixels, task.model.image_size
    augment = Augment(recipe, pixels.mean, pixels.std)
    labels = torch.from_numpy(pictures.known).long()  # type: ignore[arg-type]
    if choose_placement(pictures, pixels, size)[0] == "memory":
        images, kept = load_in_memory(pictures, pixels, size)
        return MemoryFeed(images, augment), labels[kept]
    return WorkerFeed(pictures, pixels, recipe, augment, workers=task.workers, seed=seed), labels
