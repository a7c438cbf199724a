import pytest

from fullrank.report import wording
from fullrank.report.content import Branch, ReportData


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (128.0, "128"),
        (4096, "4,096"),
        (84.21, "84.2"),
        (0.9304, "0.93"),
        (0.07, "0.07"),
        (-0.0123, "-0.0123"),
        (12345.6, "12,346"),
        (2.4e-7, "2.4×10⁻⁷"),
        (3e8, "3×10⁸"),
        (float("nan"), "–"),
        (float("-inf"), "–"),
    ],
)
def test_plain_numbers(value, text):
    assert wording.plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (271.4, "4 min 31 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_counts():
    assert wording.counted(1, "steps") == "1 step"
    assert wording.counted(6240, "steps") == "6,240 steps"
    assert wording.counted(1, "classes") == "1 class"
    assert wording.counted(6.0, "epochs") == "6 epochs"
    assert wording.counted(2.5, "epochs") == "2.5 epochs"
    assert wording.counted(1_234_567, "steps") == "1,234,567 steps"


def branches(*verdicts):
    return [Branch(name, name, verdict) for name, verdict in zip("YZ", verdicts, strict=False)]


@pytest.mark.parametrize(
    ("verdicts", "headline", "sentence"),
    [
        (
            ("healthy", "healthy"),
            "No collapse",
            "The representation Y and the embedding Z both spread over many independent directions.",
        ),
        (
            ("healthy", "dimensional collapse"),
            "Dimensional collapse",
            "The embedding Z has collapsed, the representation Y has not.",
        ),
        (
            ("complete collapse", "healthy"),
            "Complete collapse",
            "The representation Y has collapsed, the embedding Z has not.",
        ),
        (
            ("complete collapse", "complete collapse"),
            "Complete collapse",
            "The representation Y and the embedding Z have collapsed.",
        ),
        (
            ("dimensional collapse", "complete collapse"),
            "Complete collapse",
            "The representation Y: dimensional collapse. The embedding Z: complete collapse.",
        ),
        (("healthy",), "No collapse", "The representation Y spreads over many independent directions."),
        ((), "Not judged yet", ""),
    ],
)
def test_verdicts_in_words(verdicts, headline, sentence):
    found = branches(*verdicts)
    assert wording.headline(ReportData("run", found)) == headline
    assert wording.summary_sentence(found) == sentence


def test_an_array_from_anywhere_has_a_name():
    assert wording.summary_sentence([Branch("vectors", "", "complete collapse")]) == "The array has collapsed."
    several = [Branch("a", "", "healthy"), Branch("b", "", "dimensional collapse")]
    assert wording.summary_sentence(several) == "The array b has collapsed, the array a has not."


def test_gain_in_words():
    assert "72.7% of the time, 32.5 points above" in wording.knn_sentence({"trained": 72.7, "untrained": 40.2})
    assert "23.1 points below" in wording.knn_sentence({"trained": 17.1, "untrained": 40.2})
    much = {"trained": 17.1, "untrained": 40.2, "raw_pixels": 17.0, "chance": 9.0}
    assert "no better" not in wording.knn_sentence(much)
    free = {"trained": 45.8, "untrained": 37.5, "raw_pixels": 75.0, "chance": 45.8, "queries": 24}
    assert wording.knn_sentence(free).endswith(
        "45.8% of the time on 24 pictures, 8.3 points above the same network before training. That is no better than "
        "the raw pixels (75.0%) and naming the largest class every time (45.8%): train for longer."
    )
    assert wording.knn_sentence({"trained": 17.1}) == ""
    assert wording.knn_sentence({}) == ""
