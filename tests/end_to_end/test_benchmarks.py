"""A script of `benchmarks/` that uses parts of the package which are not public, so that it goes on working."""

import json
import subprocess
import sys
from pathlib import Path

ZOO = Path(__file__).parents[2] / "benchmarks" / "zoo.py"


def test_a_row_of_the_table_of_all_methods(tmp_path):
    asked = [sys.executable, str(ZOO), "--only", "simsiam", "--steps", "3", "--out", str(tmp_path / "zoo")]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "zoo.json").read_text())["rows"]
    assert row["method"] == "simsiam"
    assert "error" not in row
    assert 0 < row["directions"]["Z"]["count"] < 512  # of the embedding
    assert "simsiam" in (tmp_path / "zoo.md").read_text()
