"""The recipes at the scale of the papers: complete, as published, and buildable."""

import dataclasses
import re
import shlex

import pytest
import torch

from fullrank import arguments, methods
from fullrank.methods import DataFacts
from fullrank.runs.build import build_method
from fullrank.runs.settings import RECIPES, load_recipe, method_options, recipe_names, resolve
from fullrank.training.prepare import view_recipe

PUBLISHED = [name for name in recipe_names() if name not in ("default", "digits", "shapes")]
IMAGES = {"imagenet": 1_281_167, "coco": 118_287 * 5}  # of ImageNet's training part; pairs of COCO's
# Epochs of the score that a recipe names, where the method's own file has those of the authors' example.
LONGER = {"simclr": 1000, "simsiam": 800, "mocov2": 800, "infomin": 800}


def header(name):
    lines = (RECIPES / f"{name}.yaml").read_text("utf-8").splitlines()
    return dict(re.match(r"#\s+(\w+):\s+(.*)", line).groups() for line in lines if re.match(r"#\s+\w+: ", line))


def test_every_method_has_one():
    assert sorted(resolve({"data": "photos/", "recipe": name}).method for name in PUBLISHED) == methods.names()
    assert sorted("vse-coco" if name == "vse" else f"{name}-imagenet" for name in methods.names()) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_is_left_to_the_default_recipe(name):
    settings = resolve({"data": "photos/", "recipe": name})
    published = methods.get(settings.method).published
    for field in dataclasses.fields(published):
        if hasattr(settings, field.name) and field.name != "epochs":
            assert getattr(settings, field.name) == getattr(published, field.name), field.name
    assert settings.epochs == LONGER.get(settings.method, published.epochs)
    assert settings.warmup_epochs in (None, published.schedule.warmup_epochs)
    assert settings.method_options == method_options(settings.method)
    assert settings.views is None
    assert settings.backbone == load_recipe(name)["backbone"]  # and not what the method has by default


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_says_commands_cost_and_score(name):
    said, settings = header(name), resolve({"data": "photos/", "recipe": name})
    assert set(said) == {"command", "SLURM", "cost", "published"}
    steps = settings.epochs * (IMAGES[name.split("-")[-1]] // settings.batch_size)
    assert said["cost"].startswith(f"{steps:,} steps of {settings.batch_size:,} images")
    for command in (said["command"], said["SLURM"][said["SLURM"].index("fullrank") :]):
        program, subcommand, *options = shlex.split(command)
        assert (program, subcommand) == ("fullrank", "train")
        parsed = resolve(arguments.parse("train", options, with_json=False))
        assert parsed.recipe == name
        devices = (1 if parsed.devices == "auto" else parsed.devices) * parsed.num_nodes
        assert settings.batch_size % devices == 0
    if "--num_nodes" in said["SLURM"]:
        nodes, tasks = (re.search(rf"--{word} (\d+)", said["SLURM"])[1] for word in ("nodes", "ntasks-per-node"))
        assert f"--num_nodes {nodes}" in said["SLURM"]
        assert f"--devices {tasks}" in said["SLURM"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_can_be_built(name):
    settings = resolve({"data": "photos/", "recipe": name})
    facts = DataFacts(samples=1000, classes=1000, image_size=settings.image_size, vocabulary=100)
    with torch.device("cpu" if settings.method == "dino" else "meta"):  # DINO's last layer is copied to the teacher's
        method, stem = build_method(settings, facts)
    assert stem.stride == (4 if settings.backbone == "resnet50" else 1), stem
    assert all(view.size >= 96 for view in view_recipe(settings, settings.image_size))
    assert sum(parameter.numel() for parameter in method.parameters()) > 20e6
