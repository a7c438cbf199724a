"""From recipes to settings: which line wins."""

import re

import pytest

from fullrank import methods
from fullrank.errors import InputError
from fullrank.runs.settings import load_recipe, parse_yaml, recipe_names, recipe_settings, resolve
from fullrank.training.optimizer import optimization_for


def test_a_recipe_wins_over_what_the_default_one_says_of_the_method():
    assert load_recipe("default")["methods"]["swav"]["learning_rate"] != load_recipe("shapes")["learning_rate"]
    settings = recipe_settings("shapes", "swav")
    assert settings["learning_rate"] == load_recipe("shapes")["learning_rate"]
    assert settings["queue"] == load_recipe("shapes")["methods"]["swav"]["queue"]


def test_whose_backbone_is_taken(tmp_path):
    recipe = tmp_path / "own.yaml"
    given = {"data": "photos/", "recipe": str(recipe)}
    for words, method, backbone in (
        ("method: mae\nbackbone: vit_tiny_patch16_224", None, "vit_tiny_patch16_224"),
        ("backbone: vit_tiny_patch16_224", "mae", "vit_tiny_patch16_224"),
        ("method: mae", None, methods.get("mae").default_backbone),
        ("method: vicreg\nbackbone: resnet18", "mae", methods.get("mae").default_backbone),
        ("method: vicreg\nbackbone: resnet18", "simclr", "resnet18"),
        (
            "method: vicreg\nbackbone: resnet18\nmethods: {mae: {backbone: vit_tiny_patch16_224}}",
            "mae",
            "vit_tiny_patch16_224",
        ),
    ):
        recipe.write_text(words)
        assert resolve(given | ({"method": method} if method else {})).backbone == backbone, words


def test_another_backbone_goes_without_what_the_recipe_says_of_its_own():
    given = {"data": "shapes", "method": "msn"}
    assert resolve(given).backbone_options == {"depth": 3}
    assert resolve(given | {"backbone": "vit_tiny_patch16_224"}).backbone_options == {}
    strides = {"test_resnet": 4, "test_vit": None, "resnet18": None}
    assert {name: resolve({"data": "shapes", "backbone": name}).stem_stride for name in strides} == strides
    assert resolve({"data": "shapes", "backbone": "resnet18", "stem_stride": 1}).stem_stride == 1


def optimization_of(method, **given):
    return optimization_for(methods.get(method).published, resolve({"data": "photos/", "method": method, **given}))


def test_a_bias_rate_is_of_its_optimiser():
    assert methods.get("barlowtwins").published.bias_learning_rate == 0.0048
    assert optimization_of("barlowtwins", learning_rate=0.1).bias_learning_rate == 0.0048
    assert optimization_of("barlowtwins", optimizer="adamw", learning_rate=1e-4).bias_learning_rate is None
    assert optimization_of("barlowtwins", optimizer="adamw", bias_learning_rate=0.5).bias_learning_rate == 0.5


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ({}, 0.4),
        ({"weight_decay": 0.04}, 0.4),
        ({"weight_decay": 0.0}, None),
        ({"weight_decay": 0.01, "weight_decay_end": 0.1}, 0.1),
        ({"weight_decay_end": 0.2}, 0.2),
        ({"optimizer": "sgd"}, None),
        ({"optimizer": "sgd", "weight_decay_end": 0.1}, 0.1),
    ],
)
def test_another_weight_decay_stays_as_it_is(given, end):
    published = methods.get("dino").published
    assert (published.optimizer, published.weight_decay, published.weight_decay_end) == ("adamw", 0.04, 0.4)
    assert optimization_of("dino", **given).weight_decay_end == end


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "moco", "momentum": 2.0}, "momentum is 2.0: give 0 to 1"),
        ({"method": "simsiam", "momentum": -0.1}, "momentum is -0.1: give 0 to 1"),
        ({"method": "pirl", "negatives": 0}, "negatives is 0: give 1 or more"),
        ({"method": "msn", "patch_drop": 1.5}, "patch_drop is 1.5: give 0 to 1"),
        ({"method": "dino", "temperature": 0.0}, "temperature is 0.0: give a number above 0"),
        ({"method": "dino", "weight_decay_end": -1.0}, "weight_decay_end is -1.0: give 0 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given, words):
    with pytest.raises(InputError, match=re.escape(words)):
        resolve(given)


def test_the_default_recipe_alone_speaks_of_the_method_last():
    assert recipe_settings("default", "vicreg")["learning_rate"] == 0.3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 2\nepochs: 3\n", "'epochs' stands twice in the mapping at line 1"),
        ("methods:\n  byol: {epochs: 2}\n  byol: {epochs: 3}\n", "'byol' stands twice in the mapping at line 2"),
        ("methods:\n  byol: {norm_pix: false}\n", "unknown setting in mine, methods, byol 'norm_pix'"),
        ("methods:\n  byol: {codes: 2}\n  bayol: {}\n", "unknown setting in mine, methods, byol 'codes'"),
        ("methods:\n  bayol: {}\n", "unknown method 'bayol'"),
        ("epoch: 2\n", "unknown setting in mine 'epoch'"),
        ("- 2\n", "mine: give settings as 'name: value' lines"),
        ("epochs: [\n", "mine is not YAML"),
    ],
)
def test_recipes_with_settings_that_nobody_would_read_are_refused(text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parse_yaml(text, "mine")


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_of_the_package_can_be_read(name):
    assert load_recipe(name)
