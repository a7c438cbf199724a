"""What every test can ask for, and `pytest tests/reference --fixtures DIR`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import Processes

REPOSITORY = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Read `TESTS --fixtures DIR` as the folder of the authors' numbers (see tests/reference/conftest.py).

    pytest has a flag of that name, which lists fixtures; without other paths beside DIR it still does.
    """
    given = [str(argument) for argument in config.invocation_params.args]
    folder = given[given.index("--fixtures") + 1 :][:1] if "--fixtures" in given else []
    if folder and folder[0] in config.args and len(config.args) > 1:
        path = config.invocation_params.dir / folder[0]
        if not path.is_dir():
            raise pytest.UsageError(f"--fixtures {path}: there is no such folder")
        config.option.showfixtures = False
        config.option.fixtures_folder = path
        config.args.remove(folder[0])


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Processes]]:
    """Gives a group of that many processes, the same one whenever the number is the same."""
    groups: dict[int, Processes] = {}

    def group_of(world: int) -> Processes:
        if world not in groups or not groups[world].alive:
            groups[world] = Processes(world, tmp_path_factory.mktemp(f"processes{world}-"))
        return groups[world]

    yield group_of
    for group in groups.values():
        group.close()


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Gives the path of a real data set beside the repository, or skips the test where there is none."""

    def find(name: str) -> Path:
        path = REPOSITORY.parent / "shared/data" / name
        if not path.exists():
            pytest.skip(f"{name} is not beside the repository")
        return path

    return find
