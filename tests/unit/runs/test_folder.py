"""The folder of a run, also of one that was killed early."""

import pytest

from fullrank.commands import compare, embed, evaluate, export
from fullrank.errors import InputError
from fullrank.runs.folder import CONFIG, Run, refuse_folder, start_folder
from fullrank.runs.settings import resolve, stored
from fullrank.training.fit import resumed_settings


@pytest.fixture
def begun(tmp_path):
    """What a kill between the first two files of a run leaves."""
    start_folder(tmp_path / "run", stored(resolve({"data": "shapes", "steps": 2})), overwrite=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [CONFIG]
    return tmp_path / "run"


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: Run(folder).summary,
        lambda folder: Run(folder).input,
        lambda folder: compare([str(folder)]),
        lambda folder: evaluate(folder),
        lambda folder: embed(folder, out="vectors.npy"),
        lambda folder: export(folder, to="timm"),
    ],
)
def test_a_run_that_was_killed_before_it_began_says_what_to_do(begun, use):
    with pytest.raises(InputError, match=r"has no summary\.json: the run was stopped before .* --overwrite"):
        use(begun)


def test_it_can_be_started_again(begun):
    with pytest.raises(InputError, match="start it with --overwrite in place of --resume"):
        resumed_settings(begun, {})
    refuse_folder(begun, overwrite=True)
