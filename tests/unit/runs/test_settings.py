"""From recipes to settings: which line wins."""

import re

import pytest

from fullrank.errors import InputError
from fullrank.runs.settings import load_recipe, parse_yaml, recipe_names, recipe_settings


def test_a_recipe_wins_over_what_the_default_one_says_of_the_method():
    assert load_recipe("default")["methods"]["vicreg"]["learning_rate"] != load_recipe("shapes")["learning_rate"]
    settings = recipe_settings("shapes", "vicreg")
    assert settings["learning_rate"] == load_recipe("shapes")["learning_rate"]
    assert settings["expander"] == load_recipe("shapes")["methods"]["vicreg"]["expander"]


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
