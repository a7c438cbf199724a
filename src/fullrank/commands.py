"""The commands: one signature each is the Python call, the command line and the YAML key.

Nothing heavy is imported until a command runs, so that `fullrank --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fullrank.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray

    from fullrank.collapse import Verdict
    from fullrank.data.check import SourceCheck
    from fullrank.data.source import Source
    from fullrank.runs.catalogue import FamilyTree, MethodPage
    from fullrank.runs.folder import Run
    from fullrank.tables import Catalogue, Table
    from fullrank.tables.compare import Compared
    from fullrank.tables.filled import Filled
    from fullrank.tables.plan import Plan
    from fullrank.training.estimate import RunPlan

    Data: TypeAlias = str | Path | ndarray | Source
    Trained: TypeAlias = str | Path | Run
else:  # what can stand on a command line
    Data = Trained = str
    Catalogue = Compared = FamilyTree = Filled = MethodPage = Plan = Run = RunPlan = SourceCheck = Table = Verdict = Any


TRAINING_PROTOCOLS = ("detection", "finetune")  # those of `training.task`


def train(
    data: Data = "shapes",
    *,
    split: str | None = None,
    include: str | None = None,
    captions: str | None = None,
    samples: int | None = None,
    output: str | None = None,
    recipe: str | None = None,
    method: str | None = None,
    backbone: str | None = None,
    backbone_options: dict[str, Any] | None = None,
    branches: Literal["shared", "separate"] | None = None,
    backbone2: str | None = None,
    stem_stride: int | None = None,
    image_size: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    optimizer: Literal["lars", "larc", "sgd", "adam", "adamw"] | None = None,
    learning_rate: float | None = None,
    bias_learning_rate: float | None = None,
    weight_decay: float | None = None,
    weight_decay_end: float | None = None,
    warmup_epochs: float | None = None,
    end_factor: float | None = None,
    regularize: dict[str, float] | None = None,
    crop_scale: float | None = None,
    views: list[dict[str, Any]] | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    placement: Literal["auto", "memory", "workers"] = "auto",
    workers: int | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
    precision: str = "auto",
    accumulate: int = 1,
    compile: bool | None = None,
    channels_last: bool | None = None,
    logger: Literal["tensorboard", "wandb", "none"] = "tensorboard",
    save_minutes: float = 5.0,
    report: bool = True,
    plan: bool = False,
    **method_options: Any,
) -> Run | RunPlan:
    """Pre-train a backbone on unlabelled images and say whether its embedding collapsed.

    Options that are not given come from the recipe, else from what the method publishes; options of the method itself
    (for VICReg: expander, invariance, variance, covariance) are given the same way.

    Args:
        data: folder, .zip, .tar(.xz|.gz), .npy/.npz, torchvision:NAME, hf:NAME, shapes or digits; an array in Python.
        split: first-level folder or named part of the data, such as train.
        include: pattern that the paths of pictures must match, such as '*.tif'.
        captions: file of captions (JSON lines, CSV, COCO's JSON, Flickr's tokens); found by itself among the data.
        samples: so many of the pictures, always the same, in place of all.
        output: folder of the run; runs/<data>-<method> when left out.
        recipe: settings by name (see fullrank/recipes) or a YAML file.
        method: which method to train (see `fullrank methods`).
        backbone: any timm model.
        backbone_options: how timm builds it, --backbone_options.depth 6 --backbone_options.drop_path_rate 0.1.
        branches: whether both views go through one network or each through its own.
        backbone2: network of the second view where it is another one; for captions gru, transformer or hf:NAME.
        stem_stride: pixels that the network's stem moves by (1, 2 or 4); chosen by image size when left out.
        image_size: pixels a side that the network sees; chosen from the data when left out.
        epochs: passes over the data.
        steps: optimiser steps; takes the place of epochs.
        batch_size: images in a step, over all devices and accumulated batches together.
        optimizer: as the method publishes when left out.
        learning_rate: highest learning rate per 256 images of the batch.
        bias_learning_rate: the same for biases and norms, where it differs.
        weight_decay: for everything but biases and norms.
        weight_decay_end: where it goes along a cosine; without it a weight decay that is given stays as it is.
        warmup_epochs: passes over which the learning rate rises; as published when left out, a tenth of all at most.
        end_factor: last learning rate as a fraction of the highest.
        regularize: weights of VICReg's terms added to the loss, --regularize.variance 25 --regularize.covariance 1.
        crop_scale: smallest share of the picture's area that a crop may take.
        views: the view recipe itself, one mapping a view, in place of the method's.
        seed: everything random follows from it.
        resume: go on with the run in the output folder.
        overwrite: delete the run in the output folder first.
        placement: pictures in memory on the device, or decoded in workers.
        workers: number of decoding processes.
        accelerator: cpu, gpu or auto.
        devices: how many, or auto.
        num_nodes: machines.
        strategy: Lightning's strategy, such as ddp.
        precision: Lightning's precision, such as 32-true; auto takes bf16-mixed where the hardware has it.
        accumulate: forward passes that make up one step, for methods whose loss compares no samples with each other.
        compile: torch.compile the network; by default on a GPU.
        channels_last: memory layout of images; by default on CPUs and CUDA GPUs.
        logger: where metrics go besides metrics.csv.
        save_minutes: minutes between two checkpoints at the most; where one is written in no time there are more.
        report: write report.html at the end.
        plan: show what would be trained and how long it would take here, and stop there.

    Returns:
        The run: `run.folder`, `run.backbone`, `run.summary`, `run.evaluate(...)`, `run.diagnose()`; or the plan.

    Raises:
        InputError: data, settings or folder cannot be used; nothing was written.
    """
    given = {name: value for name, value in locals().items() if name != "method_options"} | method_options
    if plan:
        from fullrank.training.estimate import plan_run

        return plan_run(given)
    from fullrank.training.fit import train_run

    return train_run(given)


def check(
    data: Data,
    *,
    split: str | None = None,
    include: str | None = None,
    batch_size: int | None = None,
    epochs: float | None = None,
    backbone: str | None = None,
) -> SourceCheck:
    """Look at a data set before an hour is lost on it: sizes, depth, duplicates, broken files, time needed.

    Args:
        data: what `train` takes.
        split: first-level folder or named part of the data.
        include: pattern that the paths of pictures must match.
        batch_size: to count the steps with.
        epochs: to estimate the time with.
        backbone: to estimate the time with.
    """
    from fullrank.training.estimate import check_with_estimate

    return check_with_estimate(
        data, split=split, include=include, batch_size=batch_size, epochs=epochs, backbone=backbone
    )


def evaluate(
    model: Trained,
    *,
    protocol: str = "knn",
    data: Data | None = None,
    split: str | None = None,
    test_split: str | None = None,
    include: str | None = None,
    annotations: str | None = None,
    label_column: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    layer: str | None = None,
    pooling: Literal["auto", "mean", "max", "cls", "cls+mean", "tokens"] = "auto",
    precision: Literal["32", "bf16"] = "32",
    device: str = "auto",
    devices: int = 1,
    workers: int = 0,
    seed: int = 0,
    seeds: int = 1,
    cache: bool = True,
    output: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Judge a backbone on labelled images by a published protocol.

    The result is kept as JSON: in the folder of a run, where its report shows it, else in evaluations/MODEL.

    Args:
        model: a run's folder, a checkpoint, timm:NAME, torchvision:NAME, or a file of weights (with --backbone).
        protocol: knn (weighted, as in DINO), linear (a probe on frozen features), svm (as on VOC07), finetune (on a
            share of the labels), detection (Faster or Mask R-CNN), retrieval (captions for images and back)
            or transfer (several data sets by several protocols).
        data: labelled images, as `train` takes them; those that the run was trained on when left out.
        split: the part that the classifier learns from.
        test_split: the part that is classified; where there is none, a fifth of the images is held out.
        include: pattern that the paths of pictures must match.
        annotations: file of labels, on the disk or in the data: CSV, parquet, JSON lines, COCO; found by itself where
            folders are no labels.
        label_column: of a table of labels.
        backbone: of a file of weights, the name of its network in timm or torchvision.
        image_size: pixels a side, where it is not the network's own.
        pretrained: whether timm:NAME or torchvision:NAME comes with its weights, or random ones.
        layer: take features from a part of the network, such as layer3 or blocks.8, or last4 (DINO).
        pooling: of what the layer gives.
        precision: of the network: 32 or bf16.
        device: cpu, cuda or auto.
        devices: how many, for protocols that train the network.
        workers: processes that decode pictures for them.
        seed: draws what is held out, and all else that is random.
        seeds: how many times, from that seed on, where training is part of the protocol: scores are means, with their
            spread. What is held out stays the same.
        cache: keep features on the disk, under a key of weights, pictures and transform.
        output: folder for the result.

    Raises:
        InputError: model, data or options cannot be used; nothing was written.
    """
    asked = {name: value for name, value in locals().items() if name != "model"}
    if seeds < 1:
        raise InputError(f"seeds is {seeds}: expected 1 or more")
    if protocol in TRAINING_PROTOCOLS or (protocol == "linear" and options.get("schedule", "quick") != "quick"):
        from fullrank.training.judging import evaluate_by_training

        return evaluate_by_training(model, asked)
    if protocol == "retrieval":
        from fullrank.runs.match import evaluate_retrieval

        return evaluate_retrieval(model, asked)
    if protocol == "transfer":
        from fullrank.runs.transfer import evaluate_transfer

        return evaluate_transfer(model, asked)
    from fullrank.runs.evaluate import evaluate_model

    return evaluate_model(model, asked)


def embed(
    run: Trained,
    *,
    data: Data | None = None,
    split: str | None = None,
    include: str | None = None,
    out: str = "vectors.parquet",
    device: str = "auto",
) -> Path:
    """Write the representation of every image to a file, with the images' names.

    Args:
        run: folder of a run.
        data: images, as `train` takes them; those that the run was trained on when left out.
        split: first-level folder or named part of the data.
        include: pattern that the paths of pictures must match.
        out: .parquet, .npy, .npz or .safetensors.
        device: cpu, cuda or auto.
    """
    from fullrank.runs.embed import embed_run

    return embed_run(run, data=data, split=split, include=include, out=Path(out), device=device)


def diagnose(
    path: Any,
    *,
    data: Data | None = None,
    split: str | None = None,
    include: str | None = None,
    target_std: float | None = None,
    report: str | None = None,
) -> dict[str, Verdict]:
    """Say whether an embedding has collapsed, why, and what to do.

    Args:
        path: run folder, checkpoint (.ckpt), or vectors: .npy, .npz, .parquet, .safetensors; an array in Python.
        data: for a run or checkpoint, images to embed in place of those that it was trained on.
        split: first-level folder or named part of the data.
        include: pattern that the paths of pictures must match.
        target_std: for vectors, the standard deviation that their loss asks of every dimension (VICReg: 1).
        report: write a page about it to this file.

    Returns:
        One verdict for each embedding: Y and Z of a run, or one a stored array.
    """
    from fullrank.runs.diagnose import diagnose_path

    return diagnose_path(path, data=data, split=split, include=include, target_std=target_std, report=report)


def export(
    run: Trained,
    *,
    to: Literal["timm", "torchvision", "huggingface", "detectron2", "onnx", "torchscript"] = "timm",
    output: str | None = None,
) -> Path:
    """Write a run's backbone in the form that another library opens, with a model card.

    Args:
        run: folder of a run.
        to: the library or format.
        output: folder to make; RUN/export/FORMAT when left out.

    Raises:
        InputError: the library has no such network; nothing was written.
    """
    from fullrank.runs.export import export_run
    from fullrank.runs.folder import Run

    return export_run(run if isinstance(run, Run) else Run(run), to, Path(output) if output else None)


def tables(name: str | None = None) -> Catalogue | Table:
    """Show the tables and figures of the talk with their questions, or one with its published numbers.

    Args:
        name: a table or figure.
    """
    from fullrank.tables import describe_tables

    return describe_tables(name)


def reproduce(
    name: str,
    *,
    data: Data = "shapes",
    split: str | None = None,
    include: str | None = None,
    captions: str | None = None,
    samples: int | None = None,
    recipe: str | None = None,
    backbone: str | None = None,
    stem_stride: int | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: float | None = None,
    budget: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    downstream: dict[str, str] | None = None,
    detection_steps: int | None = None,
    accelerator: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    output: str | None = None,
    plan: bool = False,
    overwrite: bool = False,
) -> Plan | Filled:
    """Run a table or figure of the talk on your data, and show it beside the published numbers.

    Every cell is an ordinary run in the folder of the table. What is done already is not done again: stopped in any
    way, the same command goes on. A run that fails leaves the others as they are. On several GPUs runs go on side by
    side, one each.

    Args:
        name: a table or figure (see `fullrank tables`).
        data: what `train` takes; without labels cells have no accuracy, only verdicts.
        split: first-level folder or named part of the data, such as train.
        include: pattern that the paths of pictures must match.
        captions: file of captions, for the table of images and text.
        samples: so many of the pictures, always the same, in place of all.
        recipe: settings by name or a YAML file; widths and batches of a table are in proportion to its own.
        backbone: any timm model.
        stem_stride: pixels that the network's stem moves by.
        image_size: pixels a side that the network sees.
        batch_size: images in a step; where the table compares batches, what stands for the published 2048.
        epochs: passes over the data of every run; as in the recipe when left out.
        budget: time for the whole table, such as 30m or 2h: epochs, and where need be a subset, are chosen to fit.
        seed: of the first run of every cell.
        seeds: runs of every cell.
        downstream: data sets for the columns of the table of the same name, --downstream.VOC07 DATA and so on.
        detection_steps: of training a detector on VOC07+12 or COCO; the published 24,000 or 90,000 when left out.
        accelerator: cpu, gpu or auto.
        precision: Lightning's precision, such as 32-true.
        workers: number of decoding processes.
        output: folder of the table; reproductions/<table>-<data> when left out.
        plan: show the runs and what they would take, and stop there.
        overwrite: delete the table in the output folder first.

    Returns:
        The table with its own numbers, or the plan.

    Raises:
        InputError: table, data or settings cannot be used; a budget that is too short.
    """
    asked = dict(locals())
    from fullrank.tables.reproduce import reproduce_table

    return reproduce_table(asked)


def compare(runs: list[str], *, output: str | None = None) -> Compared:
    """Show runs side by side: what they gave, their verdicts, time and memory, and in what their settings differ.

    Runs that differ by their seed alone are one line, with means and standard deviations.

    Args:
        runs: folders of finished runs.
        output: folder for the same as Markdown, CSV and a page; none is written when left out.

    Raises:
        InputError: a folder that is no finished run.
    """
    from fullrank.tables.compare import compare_runs

    return compare_runs(runs, output)


def methods(name: str | None = None) -> FamilyTree | MethodPage:
    """Show the family tree of the methods, or one: equation, paper, options, views, published recipe, command.

    Args:
        name: a method.
    """
    from fullrank.runs.catalogue import describe_methods

    return describe_methods(name)
