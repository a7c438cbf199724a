"""Numbers that the authors' own code computed, how closely ours must equal them, and a table at the end.

`pytest tests/reference --fixtures DIR` reads them from DIR instead of from the copies here. Each NAME.npz holds
inputs (in_*), outputs (out_*), gradients (grad_*) and `params`, a JSON string of the hyper-parameters; the
index.json beside or above it says what each is and how far a second implementation may lie off. The tests take
shapes, seeds and hyper-parameters from the file and expect nothing of them.
"""

import fnmatch
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

COPIES = Path(__file__).parent / "fixtures"
WITHOUT_INDEX = {
    "metric": "per array: max|a-b| / max|b|, absolute where max|b| < 1e-10",
    "float64": 1e-9,
    "float32": 1e-5,
}
Fixture = dict[str, Any]  # arrays by key, and `params` as a dictionary


@dataclass
class Row:
    exercises: str
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)  # precision -> worst error, tolerance
    missing: str = ""


@dataclass
class ErrorTable:
    """Compares with the fixture's arrays, remembers the largest error of each fixture, and fails above the limit."""

    folder: Path
    index: dict[str, dict[str, Any]]
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(str(self.index.get(name, {}).get("what", ""))))

    def check(self, name: str, key: str, ours: Any, theirs: Any, *, precision: str = "float64") -> None:
        """Assert that `ours` equals `theirs`, the array `key` of fixture `name`, within its tolerance.

        Nothing is asserted in float32 where the index gives no number for it.
        """
        ours, theirs = as_array(ours), as_array(theirs)
        assert ours.shape == theirs.shape, f"{name} {key}: {ours.shape} against {theirs.shape}"
        error, limit = measure(self.tolerance(name), key, ours, theirs, precision)
        if limit is not None:
            self.record(name, error, limit, precision=precision)
            assert error <= limit, f"{name} {key} in {precision}: error {error:.3g}, at most {limit:.3g}"

    def record(self, name: str, error: float, limit: float, *, precision: str = "float64") -> None:
        """Enter an error that a test measured itself."""
        errors = self.row(name).errors
        errors[precision] = max(errors.get(precision, (0.0, limit)), (float(error), limit))

    def tolerance(self, name: str) -> Any:
        return self.index.get(name, {}).get("tolerance", WITHOUT_INDEX)


def measure(
    tolerance: Any, key: str, ours: np.ndarray, theirs: np.ndarray, precision: str
) -> tuple[float, float | None]:
    """Error and limit in the terms of an index: indexes state tolerances in four ways."""
    difference = np.abs(ours - theirs)
    worst, size = difference.max(initial=0.0), np.abs(theirs).max(initial=0.0)
    if not np.isfinite(ours).all():
        worst = np.inf
    if tolerance == "exact":
        return float(worst), 0.0
    assert isinstance(tolerance, dict), f"{key}: the tolerance is stated in words, {tolerance!r}: compare by hand"
    own = {pattern: limit for pattern, limit in tolerance.items() if fnmatch.fnmatch(key, pattern)}
    if "default" in tolerance:
        limit = next(iter(own.values()), tolerance["default"]) if precision == "float64" else None
        return float(worst / max(1.0, size)), limit
    limit = tolerance.get(precision)
    if isinstance(limit, dict):
        relative, absolute = limit.get("rtol", 0.0), limit.get("atol", 0.0)
        if not relative:
            return float(worst), absolute
        shares = difference / (np.abs(theirs) + absolute / relative + 1e-300)
        return float(shares.max(initial=0.0)) if np.isfinite(worst) else np.inf, relative
    limit = limit if isinstance(limit, float) else None
    if own and limit is not None:
        limit = max(limit, *own.values())
    return float(worst / size if size >= 1e-10 else worst), limit


def as_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of every index.json in the folder, whole."""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("index.json")):
        entries |= {name: entry for name, entry in json.loads(path.read_text()).items() if isinstance(entry, dict)}
    return entries


TABLE = pytest.StashKey[ErrorTable]()


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("fixtures_folder", default=COPIES)
    config.stash[TABLE] = ErrorTable(folder, read_index(COPIES) | read_index(folder))


@pytest.fixture(scope="session")
def error_table(pytestconfig: pytest.Config) -> ErrorTable:
    return pytestconfig.stash[TABLE]


@pytest.fixture
def fixture_file(error_table: ErrorTable) -> Callable[[str], Fixture]:
    """Reads a fixture by name; skips the test where the folder has none of that name."""

    def read(name: str) -> Fixture:
        found = sorted(error_table.folder.rglob(f"{name}.npz"))
        if not found:
            error_table.row(name).missing = f"not in {error_table.folder}"
            pytest.skip(f"{name}: {error_table.row(name).missing}")
        with np.load(found[0]) as arrays:
            content: Fixture = {key: arrays[key] for key in arrays.files}
        content["params"] = json.loads(str(content.get("params", "{}")))
        return content

    return read


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What softmax and noise-contrastive estimation compare, call by call."""
    seen: list[torch.Tensor] = []

    def record(module: str, name: str, pick: Callable[[Any], torch.Tensor]) -> None:
        original = getattr(import_module(module), name)

        def recorded(*arguments: Any) -> Any:
            found = original(*arguments)
            seen.append(pick(found))
            return found

        monkeypatch.setattr(import_module(module), name, recorded)

    record("fullrank.losses.contrastive", "info_nce_logits", lambda found: found[0])
    record("fullrank.losses.nce", "nce_logits", lambda found: found)
    return seen


@pytest.fixture(params=["float64", "float32"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if not table.rows:
        return
    terminalreporter.section("numbers of the authors' code")
    terminalreporter.write_line(f"from {table.folder}: largest error / tolerance")
    terminalreporter.write_line(f"{'fixture':28}{'float64':20}{'float32':20}what it exercises")
    for name, row in sorted(table.rows.items()):
        cells = [
            f"{row.errors[kind][0]:.1e} / {row.errors[kind][1]:.0e}" if kind in row.errors else "-"
            for kind in ("float64", "float32")
        ]
        words = f"skipped: {row.missing}" if row.missing else row.exercises[:90]
        terminalreporter.write_line(f"{name:28}{cells[0]:20}{cells[1]:20}{words}")
