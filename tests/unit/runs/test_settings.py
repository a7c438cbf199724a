"""From recipes to settings: which line wins."""

from fullrank.runs.settings import load_recipe, recipe_settings


def test_a_recipe_wins_over_what_the_default_one_says_of_the_method():
    assert load_recipe("default")["methods"]["vicreg"]["learning_rate"] != load_recipe("shapes")["learning_rate"]
    settings = recipe_settings("shapes", "vicreg")
    assert settings["learning_rate"] == load_recipe("shapes")["learning_rate"]
    assert settings["expander"] == load_recipe("shapes")["methods"]["vicreg"]["expander"]


def test_the_default_recipe_alone_speaks_of_the_method_last():
    assert recipe_settings("default", "vicreg")["learning_rate"] == 0.3
