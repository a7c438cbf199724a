"""Scripts of `benchmarks/` that use parts of the package which are not public, so that they go on working."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_row_of_the_table_of_all_methods(tmp_path):
    asked = [sys.executable, str(BENCHMARKS / "zoo.py"), "--only", "simsiam", "--steps", "3"]
    asked += ["--out", str(tmp_path / "zoo")]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "zoo.json").read_text())["rows"]
    assert row["method"] == "simsiam"
    assert "error" not in row
    assert 0 < row["directions"]["Z"]["count"] < 512  # of the embedding
    assert "simsiam" in (tmp_path / "zoo.md").read_text()


def test_what_methods_cost_side_by_side(tmp_path):
    asked = [sys.executable, str(BENCHMARKS / "cost.py"), "--data", "shapes:N=256,size=32", "--epochs", "1"]
    asked += ["--folder", str(tmp_path / "cost"), "--out", str(tmp_path / "cost.md")]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "cost.md").read_text()
    for row in ("VICReg", "Barlow Twins", "BYOL", "SwAV", "SwAV (multi-crop)"):
        for column in ("time / 100 epochs", "peak memory / GPU", "Top-1"):
            assert f"| {row} | {column} | " in text
    assert "beside" in text.splitlines()[-1] or "| vicreg |" in text  # without peers, with them
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("cost/runs/*/summary.json")]
    assert len(summaries) == 5
    assert all(summary["peak_memory"] > 0 for summary in summaries)
