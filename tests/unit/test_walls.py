"""The arrows between the rooms of the package: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/fullrank"
FOUNDATION = {"docstrings", "errors", "registry", "distributed", "files", "machine", "schedules"}
# room -> the other rooms of the package that it may import
ALLOWED = {
    "losses": FOUNDATION,
    "views": FOUNDATION,
    "collapse": FOUNDATION,
    "networks": FOUNDATION,
    "methods": FOUNDATION | {"losses", "networks", "views"},
    "data": FOUNDATION,
    "evaluation": FOUNDATION | {"data"},
    "report": FOUNDATION,
    "runs": FOUNDATION
    | {"collapse", "commands", "data", "evaluation", "methods", "networks", "report", "terminal", "views"},
    "tables": FOUNDATION | {"commands", "data", "evaluation", "report", "runs", "terminal", "training", "views"},
    "training": FOUNDATION
    | {"collapse", "commands", "data", "evaluation", "methods", "networks", "report", "runs", "terminal", "views"},
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_room_imports_only_what_it_may(room):
    files = list((SOURCE / room).glob("*.py"))
    assert files
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    for path in files:
        used = {name.split(".")[1] for name in imports(path) if name.startswith("fullrank.")} & rooms
        assert used - {room} <= ALLOWED[room], f"{path.name} imports {used - {room} - ALLOWED[room]}"


def test_only_training_knows_lightning():
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] != "training":
            assert not {name for name in imports(path) if name.split(".")[0] == "lightning"}, path


@pytest.mark.parametrize("statement", ["import fullrank", "from fullrank import cli; cli.main(['--help'])"])
def test_start_imports_nothing_heavy(statement):
    check = f"{statement}\nimport sys\nheavy = {{'torch', 'numpy', 'timm', 'lightning', 'sklearn', 'jsonargparse'}}\n"
    check += "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
