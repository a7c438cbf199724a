import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fullrank.report import figures
from fullrank.report.figures import Axis, Curve


def curve(y, role="plain", x=None):
    y = np.asarray(y, dtype=float)
    return Curve("", role, np.arange(len(y), dtype=float) if x is None else np.asarray(x, dtype=float), y)


def points(path):
    return np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), dtype=float)


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 37.2), (-3, 4), (1e-7, 3e-7), (20, 6240), (0.98, 1.02), (0, 9e9)]
)
@pytest.mark.parametrize("most", [3, 4, 5])
def test_ticks_are_round_few_and_inside(low, high, most):
    ticks = np.array(figures.nice_ticks(low, high, most))
    assert 1 <= len(ticks) <= most
    assert ticks.min() >= low - 1e-9 * (high - low)
    assert ticks.max() <= high + 1e-9 * (high - low)
    if len(ticks) > 1:
        step = np.diff(ticks).mean()
        mantissa = step / 10 ** np.floor(np.log10(step) + 1e-9)
        assert min(abs(mantissa - round_one) for round_one in (1, 2, 2.5, 5)) < 1e-6
        np.testing.assert_allclose(ticks / step, np.rint(ticks / step), atol=1e-6)
        # no finer step of that kind would also fit
        assert (high - low) / step > most / 2.6 - 1


def test_path_gives_the_data_back():
    values = np.array([4.0, 1.0, 3.0, 3.5, 0.5])
    chart = figures.line_chart("loss", "Loss", [curve(values, x=[10, 20, 40, 80, 100])], x_range=[0, 200])
    across, down = points(chart.curves[0].path).T
    np.testing.assert_allclose(across / 1000 * 200, [10, 20, 40, 80, 100], atol=0.02)
    ticks = {float(label): place for place, label in chart.y_ticks}
    (low, place_low), (high, place_high) = min(ticks.items()), max(ticks.items())
    recovered = low + (place_low - down) / (place_low - place_high) * (high - low)
    np.testing.assert_allclose(recovered, values, atol=0.01)


def test_log_axis_places_powers_evenly():
    values = 10.0 ** np.array([0, -1, -2, -3, -4])
    chart = figures.line_chart("s", "S", [curve(values)], log=True)
    np.testing.assert_allclose(
        np.diff(points(chart.curves[0].path)[:, 1]), np.full(4, 168 / (4 + 2 * np.log10(1.2))), atol=0.1
    )
    assert [label for _, label in chart.y_ticks] == ["1", "0.1", "0.01", "10⁻³", "10⁻⁴"]


def test_wide_spans_are_drawn_on_a_log_axis():
    assert figures.line_chart("a", "A", [curve(np.geomspace(1, 1000, 50))]).log
    assert not figures.line_chart("a", "A", [curve(np.geomspace(1, 20, 50))]).log
    assert not figures.line_chart("a", "A", [curve(np.linspace(-1, 1000, 50))]).log


def test_long_curve_is_bucket_means_inside_a_band():
    y = np.random.default_rng(0).standard_normal(1003)
    x, mean, least, most = figures.bucket(np.arange(1003.0), y)
    assert len(x) == figures.MOST_POINTS
    starts = np.floor(np.arange(figures.MOST_POINTS) * 1003 / figures.MOST_POINTS).astype(int)
    for index, part in enumerate(np.split(y, starts[1:])):
        assert mean[index] == pytest.approx(part.mean())
        assert (least[index], most[index]) == (part.min(), part.max())
    assert (x[0], x[-1]) == (0, 1002)


def test_values_that_were_not_measured_are_left_out():
    chart = figures.line_chart("k", "kNN", [curve([np.nan, 1, np.inf, 2, np.nan])])
    np.testing.assert_array_equal(chart.curves[0].hover["x"], [1, 3])
    assert figures.line_chart("k", "kNN", [curve([np.nan, np.nan])]) is None
    assert figures.line_chart("k", "kNN", []) is None


def test_single_value_is_a_dot_in_the_middle():
    chart = figures.line_chart("loss", "Loss", [curve([3.0], x=[7])])
    assert chart.curves[0].path == ""
    assert chart.curves[0].dot[0] == 50
    assert [label for _, label in chart.x_ticks] == ["7"]
    assert chart.latest == "3"


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-12])
def test_constant_curve_stays_inside(value):
    chart = figures.line_chart("rate", "Rate", [curve([value] * 3)])
    down = points(chart.curves[0].path)[:, 1]
    assert (down >= 0).all()
    assert (down <= chart.height).all()


def test_healthy_run_is_cut_to_the_steps_and_alone_is_no_chart():
    reference = Curve("healthy run", "reference plain", np.array([0.0, 50, 100, 900]), np.array([4.0, 3, 2, 99]))
    chart = figures.line_chart("loss", "Loss", [reference, curve([4, 3, 2.5], x=[0, 50, 100])])
    assert [one.role for one in chart.curves] == ["reference plain", "plain"]
    assert chart.curves[0].hover["x"] == [0, 50, 100]
    assert figures.line_chart("loss", "Loss", [reference]) is None


def test_labels_of_two_curves_are_moved_apart():
    assert figures.spread([50, 51], 100) == [50, 66]
    assert figures.spread([60, 20], 100) == [60, 20]
    places = figures.spread([99, 98, 97], 100)
    assert sorted(places, reverse=True) == places
    assert max(places) <= 100
    assert min(-np.diff(places)) >= figures.LABEL_HEIGHT


def test_curves_of_two_branches_are_labelled_and_described():
    both = [
        Curve("Y", "Y", np.arange(3.0), np.array([1.0, 2, 3])),
        Curve("Z", "Z", np.arange(3.0), np.array([3.0, 2, 1])),
    ]
    chart = figures.line_chart("rank", "Rank", both, from_zero=True)
    assert chart.labelled
    assert chart.curves[0].end < chart.curves[1].end  # Y ends higher
    assert "Y: from 1 at step 0 to 3 at step 2, between 1 and 3." in chart.summary
    assert chart.y_ticks[-1][1] == "3" or chart.y_ticks[0] == (168.0, "0")


def test_spectrum_is_a_share_of_the_largest_and_marks_the_rank():
    shares = figures.relative(np.array([0.5, 4.0, 0.0, 2.0, np.nan]))
    np.testing.assert_allclose(shares, [1, 0.5, 0.125, figures.FLOOR])
    chart = figures.spectrum_chart("s", "Y", "Y", shares, None, 2.4, 1e-9)
    assert chart.latest == "4 directions"
    ((place, label),) = chart.marks
    assert label == "effective rank 2"
    assert place == pytest.approx(100 * (2.4 - 1) / 3)


def test_flat_spectrum_looks_flat():
    chart = figures.spectrum_chart("s", "Y", "Y", np.linspace(1, 0.8, 50), None, None, 0.01)
    down = points(chart.curves[0].path)[:, 1]
    assert np.ptp(down) < 0.1 * chart.height
    assert [label for _, label in chart.y_ticks] == ["1", "0.1", "0.01"]


def test_spectrum_of_a_constant_or_of_nothing():
    np.testing.assert_array_equal(figures.relative(np.zeros(8)), np.full(8, figures.FLOOR))
    assert figures.relative(np.array([np.nan])) is None
    assert figures.relative(None) is None


def test_histogram_counts_every_dimension_from_zero():
    values = np.concatenate([np.random.default_rng(0).uniform(0.2, 0.8, 200), [np.nan]])
    chart = figures.histogram("h", "Z", "Z", values, target=1.0)
    hover = chart.curves[0].hover
    assert sum(hover["y"]) == 200
    assert chart.filled
    ((place, label),) = chart.marks
    assert label == "target 1"
    assert place == pytest.approx(100 / 1.05)
    edges = np.linspace(0, 1.05, figures.BINS + 1)
    np.testing.assert_array_equal(hover["y"], [((values >= a) & (values < b)).sum() for a, b in pairwise(edges)])
    assert figures.histogram("h", "Z", "Z", np.array([np.nan])) is None
    assert figures.histogram("h", "Z", "Z", np.zeros(4)) is not None


def test_heat_map_shows_sign_as_hue_and_size_as_opacity():
    colours = pixels(figures.data_uri(figures.diverging(np.array([[1.0, -0.5], [0.0, np.nan]])), "PNG"))
    np.testing.assert_array_equal(colours[0, 0], [*figures.POSITIVE, 255])
    np.testing.assert_array_equal(colours[0, 1], [*figures.NEGATIVE, 128])
    assert colours[1, 0, 3] == 0
    np.testing.assert_array_equal(colours[1, 1], figures.UNDEFINED)


def test_heat_map_carries_its_values_in_the_order_shown():
    random = np.random.default_rng(1)
    correlation = np.corrcoef(random.standard_normal((12, 40)))
    correlation[3] = correlation[:, 3] = np.nan
    found = figures.heat_map("c", "Y", correlation)
    assert sorted(found.dimensions) == list(range(12))
    values = np.frombuffer(base64.b64decode(found.values), np.int8).reshape(12, 12).astype(float)
    values[values == -128] = np.nan
    expected = correlation[np.ix_(found.dimensions, found.dimensions)]
    np.testing.assert_allclose(values / 100, expected, atol=0.005001)
    off = [abs(correlation[i, j]) for i in range(12) for j in range(12) if i != j and 3 not in (i, j)]
    assert found.off_diagonal == pytest.approx(np.mean(off))


def test_dimensions_that_go_together_stand_side_by_side():
    random = np.random.default_rng(2)
    group = random.permutation(np.repeat([0, 1, 2], 8))
    sources = random.standard_normal((3, 500))
    correlation = np.corrcoef(sources[group] + 0.3 * random.standard_normal((24, 500)))
    ordered = group[figures.together(correlation)]
    assert (np.diff(ordered) != 0).sum() == 2


def test_heat_map_of_one_or_only_constant_dimensions():
    assert figures.heat_map("c", "Y", np.array([[1.0]])).mean_text == "not defined"
    assert figures.heat_map("c", "Y", np.full((3, 3), np.nan)).mean_text == "not defined"


def test_glyphs_show_a_cloud_a_line_and_a_point():
    ratios = {}
    for verdict in ("healthy", "dimensional collapse", "complete collapse"):
        dots = np.array(figures.glyph(verdict))
        assert (np.hypot(*(dots[:, :2] - 50).T) + dots[:, 2] <= 46).all()
        if len(dots) > 1:
            spread = np.linalg.eigvalsh(np.cov(dots[:, :2].T))
            ratios[verdict] = spread[0] / spread[1]
    assert ratios["healthy"] > 0.9
    assert ratios["dimensional collapse"] < 0.01
    assert len(figures.glyph("complete collapse")) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (0.1 + 0.2, "0.3"),
        (1500, "1,500"),
        (20000, "20k"),
        (1.5e6, "1.5M"),
        (2e9, "2G"),
        (2e-5, "2×10⁻⁵"),
    ],
)
def test_tick_labels_are_short(value, text):
    assert figures.short_number(value) == text


def test_axis_holds_values_at_its_border():
    np.testing.assert_allclose(
        Axis(0, 10, 100, flipped=True).place(np.array([-5, 0, 2.5, 10, 99])), [100, 100, 75, 0, 0]
    )


def test_an_axis_of_less_than_an_epoch_has_ticks():
    curve = figures.Curve("Z", "own", np.array([0.1, 0.5, 0.9]), np.array([1.0, 2.0, 3.0]))
    chart = figures.line_chart("key", "title", [curve], x_label="epoch")
    assert [label for _, label in chart.x_ticks] == ["0.25", "0.5", "0.75"]
