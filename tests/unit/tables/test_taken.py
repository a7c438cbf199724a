"""What a table took over several calls."""

import time

import pytest

from fullrank.tables.taken import Call, seconds_of_calls, taken_in_words


def test_calls_are_kept_one_after_the_other(tmp_path):
    assert seconds_of_calls(tmp_path) == []
    first = Call(tmp_path, time.monotonic() - 90)
    first.keep()
    first.keep()  # the same call, a moment later
    assert seconds_of_calls(tmp_path) == [pytest.approx(90, abs=1)]
    Call(tmp_path, time.monotonic() - 30).keep()
    assert seconds_of_calls(tmp_path) == [pytest.approx(90, abs=1), pytest.approx(30, abs=1)]


def test_not_every_look_is_written_down(tmp_path):
    long_ago = Call(tmp_path, time.monotonic() - 60)
    long_ago.keep_now_and_then()
    (written,) = seconds_of_calls(tmp_path)
    long_ago.keep_now_and_then()
    assert seconds_of_calls(tmp_path) == [written]
    (tmp_path / "other").mkdir()
    Call(tmp_path / "other", time.monotonic()).keep_now_and_then()
    assert seconds_of_calls(tmp_path / "other") == []


@pytest.mark.parametrize(
    ("calls", "budget", "words"),
    [
        ([], 240.0, ""),
        ([75.0], None, "1 min 15 s"),
        ([75.0], 240.0, "1 min 15 s, of the 4 min that were given"),
        ([75.0, 360.0], 240.0, "7 min 15 s in 2 calls, of the 4 min that were given"),
    ],
)
def test_in_words(calls, budget, words):
    assert taken_in_words(calls, budget) == words
