"""`fullrank methods` as it is typed."""

import json

from fullrank import methods


def test_the_tree_and_the_page_of_one(command):
    done = command("methods")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in methods.names())
    assert max(map(len, done.stdout.splitlines())) <= 100  # the terminal's width here
    page = command("methods", "vicreg")
    assert "mu [v(Z) + v(Z')]" in page.stdout
    assert "fullrank train --method vicreg" in page.stdout


def test_as_data(command):
    families = json.loads(command("methods", "--json").stdout)
    assert sorted(entry["name"] for members in families.values() for entry in members) == methods.names()
    page = json.loads(command("methods", "byol", "--json").stdout)
    assert {"equation", "paper", "options", "switches", "views", "published", "commands"} <= page.keys()
    assert {option["name"]: option["default"] for option in page["switches"]}["momentum"] == 0.996
