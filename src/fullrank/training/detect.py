"""Detection and instance segmentation: a detector on the backbone, trained and judged as COCO and VOC are."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fullrank import distributed
from fullrank.data.objects import pycocotools_mask
from fullrank.errors import InputError, unknown
from fullrank.evaluation.detection import Training, published_training
from fullrank.evaluation.features import evaluating
from fullrank.evaluation.protocol import Result
from fullrank.evaluation.voc_detection import Boxes, voc_scores
from fullrank.networks.batch_norm import synchronise_batch_norm
from fullrank.networks.detector import Kind, build_detector, freeze_backbone, level_batch_norm
from fullrank.training.batches import Batches, Plan, mix
from fullrank.training.kept import Kept
from fullrank.training.marked import Marked, collate, has_masks, sides_for
from fullrank.training.task import TRAINED, Task

Variant = Literal["finetuned", "frozen", "scratch"]
SAVE_SECONDS = 60.0
LEVELLING = 200  # batches for precise batch norm, and a quarter of the run at the most


@TRAINED.register("detection")
def detect(
    task: Task,
    *,
    variants: Sequence[Variant] = ("finetuned",),
    detector: Kind | None = None,
    masks: bool | None = None,
    recipe: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    short_sides: Sequence[int] | None = None,
    regions: int = 512,
    proposals: int = 1000,
    seed: int = 0,
) -> Result:
    """Average precision of detectors on the backbone, trained alike: same pictures, order, steps and rates.

    Args:
        task: network, and pictures with objects.
        variants: finetuned, frozen (only the detector's own parts learn), scratch (random weights): one row each.
        detector: c4 (Faster R-CNN on a ResNet's third stage) or fpn (with a feature pyramid; for masks, and for
            backbones that are no ResNets).
        masks: whether pixels are learnt and judged too; where the pictures have them when left out.
        recipe: whose published settings: "moco voc", "vicreg voc", "barlowtwins voc", "infomin coco", "vicreg coco";
            by default the first for boxes and InfoMin's for masks.
        steps: of the optimiser, in place of the recipe's 24,000 or 90,000.
        batch_size: pictures in a step, in place of 16; rates follow it in proportion.
        learning_rate: at 16 pictures a step, in place of the recipe's.
        short_sides: of pictures in training, one drawn each time; 480 to 800, or their own where pictures are small.
        regions: of a picture that the heads learn from in a step; fewer make a step on a processor short.
        proposals: regions of a picture that are looked at in testing.
        seed: of heads, order and flips; VOC's tables are means of five.

    Raises:
        InputError: pictures without objects, a detector that the backbone cannot have, or a loss that is not finite.
    """
    pycocotools_mask()  # which judging needs: said before hours of training, not after them
    for part in (task.train, task.test):
        if not part.has_answers:
            raise InputError(f"nothing is marked in the {len(part.indices):,} pictures of {part.source.name}")
    complete = has_masks(task.train) and has_masks(task.test)
    if masks and not complete:
        raise InputError(f"{task.train.source.name} has no masks, or not in every picture: leave out --masks")
    masks = complete if masks is None else masks
    kind: Kind = detector or ("c4" if not masks and hasattr(task.model.backbone, "layer4") else "fpn")
    training = published_training(recipe or ("infomin coco" if masks else "moco voc"), steps, batch_size, learning_rate)
    sides, test_side = sides_for(task.train, tuple(short_sides or ()), training.sides)
    classes = task.train.source.classes
    design = Design(kind, masks, sides, test_side, regions, proposals)
    each = {variant: trained_and_judged(task, training, design, variant, seed) for variant in variants}
    scores, by_class = each[next(iter(variants))]
    return Result(
        protocol="detection",
        scores=scores,
        n_train=len(task.train.indices),
        n_test=len(task.test.indices),
        classes=len(classes),
        settings=dataclasses.asdict(training) | design.to_dict() | {"recipe": recipe, "seed": seed},
        details={variant: found for variant, (found, _) in each.items()},
        by_class=by_class,
    )


@dataclass(frozen=True)
class Design:
    """What is built: see `build_detector`."""

    kind: Kind
    masks: bool
    sides: tuple[int, ...]
    test_side: int
    regions: int
    proposals: int

    def to_dict(self) -> dict[str, Any]:
        """As a result keeps it."""
        own = {"detector": self.kind, "masks": self.masks, "short_sides": list(self.sides), "test_side": self.test_side}
        return own | {"regions": self.regions, "proposals": self.proposals}


def trained_and_judged(
    task: Task, training: Training, design: Design, variant: Variant, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of one detector, and the AP of every class; what a stopped task has done is not done again."""
    names = [task.train.source.names[place] for place in task.train.indices]
    identity = f"{variant} {seed} {training} {design} {task.identity(names)}"
    kept = Kept(task)
    if found := kept.done(identity):
        return found
    torch.manual_seed(seed)
    built = build_detector(
        with_weights(task.model.backbone, variant),
        len(task.train.source.classes),
        kind=design.kind,
        masks=design.masks,
        short_sides=design.sides,
        test_side=design.test_side,
        mean=task.pixels.mean,
        std=task.pixels.std,
        regions=design.regions,
        proposals=design.proposals,
    )
    if variant == "frozen":
        freeze_backbone(built)
    run = DetectorRun(task, built, training, masks=design.masks, seed=seed)
    run.train(variant, kept, identity)
    scores, by_class = run.judge()
    kept.finish(identity, (scores, by_class))
    return scores, by_class


def with_weights(backbone: nn.Module, variant: Variant) -> nn.Module:
    """A copy of the backbone, for `scratch` with first weights drawn anew."""
    if variant not in ("finetuned", "frozen", "scratch"):
        raise unknown("variant", variant, ("finetuned", "frozen", "scratch"))
    copied = copy.deepcopy(backbone)
    if variant == "scratch":
        for module in copied.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
        if hasattr(copied, "init_weights"):
            copied.init_weights()  # type: ignore[operator]
    return copied


class DetectorRun:
    """A detector, its pictures, and how it is trained."""

    def __init__(self, task: Task, detector: Any, training: Training, *, masks: bool, seed: int) -> None:
        fabric = task.fabric
        if fabric.world_size > 1:
            detector = synchronise_batch_norm(detector, fabric.device.type)
        optimizer = torch.optim.SGD(decayed_groups(detector, training.weight_decay), lr=0.0, momentum=0.9)
        self.task, self.fabric, self.training, self.masks, self.seed = task, fabric, training, masks, seed
        self.test_side = detector.test_side
        self.detector, self.optimizer = fabric.setup(detector, optimizer)
        rows = min(training.batch_size, len(task.train.indices))
        if rows < fabric.world_size:
            raise InputError(f"{rows} pictures a step are too few for {fabric.world_size} devices")
        self.plan = Plan(len(task.train.indices), rows - rows % fabric.world_size, training.steps, seed)
        self.learnt = Marked(task.train, task.pixels, masks=masks, flips=True, seed=seed)
        self.judged = Marked(task.test, task.pixels, masks=masks, flips=False)
        self.loading: dict[str, Any] = {"collate_fn": collate, "num_workers": task.workers}

    def _batches(self, start: int) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
        world, rank = self.fabric.world_size, self.fabric.global_rank
        batches = Batches(self.plan, start=start, rank=rank, world_size=world)
        for images, targets in DataLoader(self.learnt, batch_sampler=batches, **self.loading):
            yield self._moved(images, targets)

    def _moved(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        device = self.fabric.device
        return [image.to(device) for image in images], [
            {name: value.to(device) for name, value in each.items()} for each in targets
        ]

    def train(self, variant: str, kept: Kept, identity: str) -> None:
        """All steps, then precise batch norm."""
        start = self._resume(kept.half(identity))
        self.detector.train()
        steps = self.task.track(self._batches(start), self.training.steps - start, f"training, {variant}")
        for step, (images, targets) in enumerate(steps, start):
            torch.manual_seed(mix(self.seed, step))
            for group in self.optimizer.param_groups:
                group["lr"] = self.training.rate(step)
            with self.task.computing():
                losses = self.detector(images, targets)
            weight = {"loss_objectness": self.training.rpn_weight, "loss_rpn_box_reg": self.training.rpn_weight}
            loss = torch.stack([weight.get(name, 1.0) * value for name, value in losses.items()]).sum()
            if not loss.isfinite():
                raise InputError(f"the detector's loss is {loss.item()} at step {step + 1}: lower --learning_rate")
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self.optimizer.step()
            if kept.age > SAVE_SECONDS:
                kept.keep(identity, self._state(step + 1))
            if (step + 1) % max(1, self.training.steps // 20) == 0:
                self.task.say(f"{variant}  step {step + 1}/{self.training.steps}  loss {loss.item():.3f}")
        last = self._batches(self.training.steps - min(LEVELLING, max(1, self.training.steps // 4)))
        level_batch_norm(self.detector, last, lambda batch: self.detector(*batch))

    def _state(self, step: int) -> dict[str, Any]:
        return {"step": step, "detector": self.detector.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _resume(self, half: dict[str, Any] | None) -> int:
        """The step to begin with."""
        if half is None:
            return 0
        self.detector.load_state_dict(half["detector"])
        self.optimizer.load_state_dict(half["optimizer"])
        return int(half["step"])

    @torch.no_grad()
    def judge(self) -> tuple[dict[str, float], dict[str, float]]:
        """COCO's AP, AP50 and AP75 of boxes and of masks, VOC's of boxes by 11 points; AP of every class; percent."""
        kinds = ("bbox", "segm") if self.masks else ("bbox",)
        coco = mean_average_precision(kinds, class_metrics=True)
        voc: list[tuple[Boxes, Boxes]] = []
        own = range(self.fabric.global_rank, len(self.judged), self.fabric.world_size)  # the metrics join the shares
        draws = [[(place, place)] for place in own]
        module = self.detector.module
        trained_sides, module.transform.min_size = module.transform.min_size, (self.test_side,)
        with evaluating(self.detector):
            loader = DataLoader(self.judged, batch_sampler=draws, **self.loading)
            for images, targets in self.task.track(loader, len(draws), "judging"):
                images, targets = self._moved(images, targets)
                with self.task.computing():
                    found = self.detector(images)
                for each in found if self.masks else ():
                    each["masks"] = each["masks"][:, 0] > 0.5
                    targets[0]["masks"] = targets[0]["masks"].bool()
                found, targets = _on_cpu(found), _on_cpu(targets)  # where the shares of several devices meet
                coco.update(found, targets)
                voc.append((_boxes(found[0], "scores"), _boxes(targets[0], "iscrowd")))
        module.transform.min_size = trained_sides
        gather_states(coco)
        found = coco.compute()
        shares = [pair for share in distributed.gather_objects(voc) for pair in share]
        scores = _scores(found, masks=self.masks) | voc_scores(*map(list, zip(*shares, strict=True)))
        return scores, _by_class(found, masks=self.masks)


def mean_average_precision(kinds: tuple[str, ...], **options: Any) -> Any:
    """torchmetrics' metric, which needs pycocotools."""
    from torchmetrics.detection import MeanAveragePrecision

    # Its own thresholds are float32: 0.6 becomes 0.60000002, and a mask with an overlap of 3 / 5 is no hit.
    overlaps, recalls = np.linspace(0.5, 0.95, 10).tolist(), np.linspace(0, 1, 101).tolist()
    options |= {"iou_thresholds": overlaps, "rec_thresholds": recalls}
    options |= {"iou_type": kinds if len(kinds) > 1 else kinds[0], "sync_on_compute": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MeanAveragePrecision(**options)


def gather_states(metric: Any) -> None:
    """Give every process what all have seen, in the same order.

    torchmetrics' own synchronisation needs as many pictures in every process.
    """
    shares = distributed.gather_objects(metric.metric_state)
    for name in shares[0]:
        setattr(metric, name, [each for share in shares for each in share[name]])


def _on_cpu(given: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: value.cpu() for name, value in each.items()} for each in given]


def _boxes(given: dict[str, Tensor], marks: str) -> Boxes:
    return Boxes(*(given[name].float().cpu().numpy() for name in ("boxes", "labels", marks)))


def decayed_groups(detector: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What learns, in groups: norms without decay, as detectron2 has them."""
    norms = {
        value
        for module in detector.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for value in module.parameters(recurse=False)
    }
    learning = [value for value in detector.parameters() if value.requires_grad]
    return [
        {"params": [value for value in learning if value not in norms], "weight_decay": weight_decay},
        {"params": [value for value in learning if value in norms], "weight_decay": 0.0},
    ]


def _scores(found: dict[str, Tensor], *, masks: bool) -> dict[str, float]:
    kinds = (("box", "bbox_"), ("mask", "segm_")) if masks else (("box", ""),)
    names = (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75"))
    return {f"{kind}_{name}": 100 * float(found[prefix + theirs]) for kind, prefix in kinds for name, theirs in names}


def _by_class(found: dict[str, Tensor], *, masks: bool) -> dict[str, float]:
    each = found["bbox_map_per_class" if masks else "map_per_class"].reshape(-1)
    pairs = zip(found["classes"].reshape(-1).tolist(), each.tolist(), strict=True)
    return {str(label - 1): 100 * score for label, score in pairs if score >= 0}  # -1: none in the test pictures
