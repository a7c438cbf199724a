"""The talk's tables as data: complete, and every cell is a run that can be asked for."""

import json

import pytest
import torch
from torch.nn import functional

from fullrank import losses, methods
from fullrank.cli import main
from fullrank.errors import InputError
from fullrank.runs.settings import resolve
from fullrank.tables import names, open_table
from fullrank.tables.talk import COLLAPSE, FOLDER, IMPOSSIBLE

TABLES = [name for name in names() if not open_table(name).curves]
# Published numbers, and the sums of every row and of every column as the slides have them, marks left out.
SLIDES: dict[str, tuple[int, list[float], list[float]]] = {
    "imagenet": (
        48,
        [287.1, 60.6, 204.6, 63.8, 66.2, 435.5, 71.1, 71.3, 71.8, 164.1, 247.4, 455.3, 367.8, 457.4, 457.5],
        [1057.0, 453.8, 290.6, 400.2, 579.5, 700.4],
    ),
    "downstream": (
        48,
        [343.1, 158.2, 165.0, 175.2, 335.2, 82.4, 265.6, 356.2, 229.0, 346.1, 346.1],
        [530.1, 857.9, 377.8, 576.7, 240.2, 219.4],
    ),
    "multimodal": (18, [355.7, 367.3, 379.7], [95.3, 182.5, 225.4, 129.4, 221.2, 248.9]),
    "regularization": (19, [209.0, 203.6, 169.5, 122.9, 123.5, 125.8, 126.1, 123.9], [172.3, 489.7, 542.3]),
    "weight-sharing": (13, [69.3, 254.9, 262.1, 269.4], [271.0, 193.8, 197.3, 193.6]),
    "coefficients": (5, [0, 0, 0, 57.5, 0, 0, 0, 68.1, 68.2, 68.6, 68.3], [330.7]),
    "normalization": (5, [68.6, 68.4, 67.4, 67.2, 65.1], [336.7]),
    "expander": (7, [55.9, 59.2, 62.4, 65.1, 67.3, 68.6, 68.8], [447.3]),
    "batch-size": (6, [67.3, 67.9, 68.2, 68.3, 68.6, 67.8], [408.1]),
    "cost": (15, [90.3, 101.2, 98.9, 96.5, 95.5], [55.0, 59.6, 367.8]),
}


def test_every_file_is_a_table():
    assert sorted(f"{name}.yaml" for name in names()) == sorted(entry.name for entry in FOLDER.iterdir())
    assert set(TABLES) == set(SLIDES)
    with pytest.raises(InputError, match="unknown table 'expandr': did you mean 'expander'"):
        open_table("expandr")


@pytest.mark.parametrize("name", TABLES)
def test_the_published_numbers_are_those_of_the_slides(name):
    table = open_table(name)
    cells = list(table.cells())
    values = [cell.value or 0 for cell in cells]
    width = len(table.columns)
    rows = [round(sum(values[start : start + width]), 1) for start in range(0, len(values), width)]
    columns = [round(sum(values[column::width]), 1) for column in range(width)]
    assert (sum(cell.value is not None for cell in cells), rows, columns) == SLIDES[name]
    words = {cell.published for cell in cells if isinstance(cell.published, str) and cell.value is None}
    assert words <= {COLLAPSE, IMPOSSIBLE}
    assert all(len(row.published) == len(table.columns) for row in table.rows)
    assert all(set(row.shown) <= set(table.shown) for row in table.rows)


@pytest.mark.parametrize("name", names())
def test_every_cell_is_a_run(name):
    for cell in open_table(name).cells():
        # What depends on the backbone and the width that are asked for is filled in when a table is reproduced.
        later = ("backbone2", "predictor", "as_in")
        settings = {key: value for key, value in cell.settings.items() if key not in later}
        assert resolve(settings | {"data": "shapes"}).method in methods.names()


def test_what_a_method_has_of_its_own_takes_the_place_of_the_regulariser():
    table = open_table("regularization")
    cells = {(cell.row.name, str(cell.row.shown), cell.column.name): cell for cell in table.cells()}
    plain = str({"BN": "✓"})
    assert cells["VICReg", plain, "No Reg"].settings == {"method": "vicreg", "variance": 0.0, "covariance": 0.0}
    assert cells["VICReg", plain, "Var/Cov Reg"].settings == {"method": "vicreg"}
    simsiam = str({"SG": "✓", "PR": "✓", "BN": "✓"})
    assert cells["SimSiam", simsiam, "No Reg"].settings == {"method": "simsiam"}
    assert cells["SimSiam", simsiam, "Var Reg"].settings == {"method": "simsiam", "regularize": {"variance": 0.5}}
    assert cells["SimSiam", simsiam, "No Reg"].published == "67.9 †"
    assert cells["SimSiam", simsiam, "No Reg"].value == 67.9


@pytest.mark.parametrize("name", ["regularization", "collapse-std", "collapse-covariance"])
def test_the_two_terms_stand_to_a_loss_as_vicregs_stand_to_its_invariance(name):
    pairs = [torch.randn(2, 64, 16, dtype=torch.float64) for _ in range(2)]
    spheres = [4 * functional.normalize(pair, dim=2) for pair in pairs]  # length sqrt(16), as the terms see them
    invariances = [losses.vicreg(*pair)["invariance"] for pair in spheres]
    for method, share in (("byol", 2.0), ("simsiam", 0.5)):
        values = [getattr(losses, method)(x, y, x, y)["loss"] for x, y in pairs]
        assert ((values[0] - values[1]) / (invariances[0] - invariances[1])).item() == pytest.approx(share)
        given = [
            cell.settings.get("regularize") for cell in open_table(name).cells() if cell.row.name.lower() == method
        ]
        assert {str(each) for each in given} == {
            "None",
            str({"variance": share}),
            str({"variance": share, "covariance": share / 25}),
        }


def test_tables_are_listed_and_shown(capsys):
    assert main(["tables"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in names())
    assert main(["tables", "regularization"]) == 0
    shown = capsys.readouterr().out
    assert "collapse  56.8     66.1" in shown
    assert "SG: stop-gradient" in shown
    assert main(["tables", "cost", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == ["time / 100 epochs", "peak memory / GPU", "Top-1"]
    assert found["rows"][-1] == {"name": "VICReg", "published": [11, 11.3, 73.2]}
    assert main(["tables", "weight-sharing"]) == 0
    assert "x: no such run can be" in capsys.readouterr().out
    assert main(["tables", "collapse-std"]) == 0
