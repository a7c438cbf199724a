"""The geometry of the figures: places in percent and pixels, paths and tick labels. The markup is in `page.html`.

A plot is as wide as its column and has a fixed height, so x is counted in thousandths of the width and y in
pixels; labels are HTML over the drawing and keep their size on every screen.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from fullrank.report.pictures import data_uri
from fullrank.report.wording import plain, superscript

WIDTH = 1000  # units of the drawing across the plot
MOST_POINTS = 240  # a longer curve is drawn as bucket means inside a band from least to most
LABEL_HEIGHT = 16  # pixels that one direct label needs
LOG_FROM = 60.0  # a curve whose values span more than this factor is drawn on a log axis
BINS = 40
POSITIVE, NEGATIVE, UNDEFINED = (214, 96, 30), (52, 116, 214), (128, 136, 148, 110)
FLOOR = 1e-8  # shares of the largest singular value below this are rounding


@dataclass(frozen=True)
class Curve:
    """Values over x; `role` is its style: Y, Z, vectors or plain, after the word "reference" when it lies behind."""

    label: str
    role: str
    x: np.ndarray
    y: np.ndarray

    @property
    def behind(self) -> bool:
        """Whether it is drawn faint behind the user's own."""
        return self.role.startswith("reference")

    def where(self, kept: np.ndarray) -> Curve:
        """Some of its points."""
        return replace(self, x=self.x[kept], y=self.y[kept])


@dataclass(frozen=True)
class Axis:
    """From data to units of the drawing."""

    low: float
    high: float
    length: float
    log: bool = False
    flipped: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Data values -> units; values outside are held at the border."""
        scaled = np.concatenate([[self.low, self.high], np.asarray(values, dtype=np.float64)])
        if self.log:
            scaled = np.log10(np.maximum(scaled, 1e-300))
        low, high, *_ = scaled
        share = np.clip((scaled[2:] - low) / (high - low), 0, 1)
        return self.length * (1 - share if self.flipped else share)

    def label(self, values: Sequence[float], labels: Sequence[str] = ()) -> list[tuple[float, str]]:
        """Places with what stands there, by itself the value: percent across on an x axis, pixels down on a y axis."""
        places = self.place(np.array(values)) / (1 if self.flipped else WIDTH / 100)
        return list(zip(places.tolist(), labels or map(short_number, values), strict=True))


@dataclass(frozen=True)
class Drawn:
    """One curve as SVG paths, with the place of its label and what hovering reads out."""

    label: str
    role: str
    path: str
    band: str
    dot: tuple[float, float] | None  # a single point: percent across, pixels down
    end: float  # pixels down of the direct label
    hover: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A plot ready for the page."""

    key: str
    title: str
    height: int
    curves: list[Drawn]
    x_ticks: list[tuple[float, str]]  # percent across, label
    y_ticks: list[tuple[float, str]]  # pixels down, label
    x_label: str
    latest: str
    summary: str
    marks: list[tuple[float, str]]  # percent across, label
    labelled: bool = False  # several curves, each named at its end
    log: bool = False
    filled: bool = False  # areas, not lines

    @property
    def hover(self) -> dict[str, Any]:
        """What the script needs to read values out."""
        curves = [{"label": one.label, "role": one.role, **one.hover} for one in self.curves]
        return {"x_label": self.x_label, "curves": curves}


def line_chart(
    key: str,
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str = "step",
    height: int = 168,
    from_zero: bool = False,
    log: bool | None = None,
    x_range: Sequence[float] = (),
    y_range: Sequence[float] = (),
    marks: Sequence[tuple[float, str]] = (),
    latest: str = "",
) -> Chart | None:
    """Curves over a common x; None when no curve has a finite value. `log=None` decides by the span of the values.

    What stands in `x_range` and `y_range` is on the axes in any case.
    """
    finite = [one.where(np.isfinite(one.x) & np.isfinite(one.y)) for one in curves]
    measured = [one for one in finite if len(one.x)]
    own = [one for one in measured if not one.behind]
    if not own:
        return None
    log = spans_decades(own) if log is None else log
    x_axis = extent(np.concatenate([np.array(x_range), *(one.x for one in own)]), WIDTH)
    inside = [one.where((one.x >= x_axis.low) & (one.x <= x_axis.high)) for one in measured]
    drawn = [one for one in inside if len(one.x)]
    y_axis = value_axis(
        np.concatenate([np.array(y_range), *(one.y for one in drawn)]), height, log=log, from_zero=from_zero
    )
    several = len(own) > 1
    ends = spread([float(y_axis.place(one.y[-1:])[0]) for one in own], height) if several else [0.0]
    places = dict(zip([one.role for one in own], ends, strict=True))
    return Chart(
        key,
        title,
        height,
        [draw(one, x_axis, y_axis, places.get(one.role, 0.0)) for one in drawn],
        x_axis.label(whole_ticks(x_axis) or nice_ticks(x_axis.low, x_axis.high, 3)),
        value_ticks(y_axis),
        x_label,
        latest or ("" if several else plain(float(own[0].y[-1]))),
        " ".join(in_words(one, x_label) for one in own),
        x_axis.label([x for x, _ in marks], [label for _, label in marks]),
        several,
        log,
    )


def spans_decades(curves: Sequence[Curve]) -> bool:
    """Whether positive values span so much that a linear axis would hide the small ones."""
    values = np.concatenate([one.y for one in curves])
    if values.min() <= 0:
        return False
    low, high = np.quantile(values, [0.02, 0.98])
    return bool(high > LOG_FROM * low)


def extent(values: np.ndarray, length: float) -> Axis:
    """The axis from the least to the largest value; a single value sits in the middle."""
    low, high = float(values.min()), float(values.max())
    return Axis(low, high, length) if high > low else Axis(low - 1, low + 1, length)


def value_axis(values: np.ndarray, height: int, *, log: bool, from_zero: bool) -> Axis:
    """The vertical axis: room above the curve, and zero at the bottom where zero is near or asked for."""
    low, high = float(values.min()), float(values.max())
    if log:
        positive = values[values > 0]
        low, high = float(positive.min()), float(positive.max())
        return Axis(low / 1.2, high * 1.2 if high > low else low * 1.2, height, log=True, flipped=True)
    zero = low >= 0 and (from_zero or low <= 0.6 * high)
    room = 0.06 * (high - (0 if zero else low)) or 0.06 * abs(high) or 1.0
    return Axis(0.0 if zero else low - room, high + room, height, flipped=True)


def draw(curve: Curve, x_axis: Axis, y_axis: Axis, end: float) -> Drawn:
    """One curve as paths; a long one as bucket means with a band."""
    x, mean, least, most = bucket(curve.x, curve.y)
    across, down = x_axis.place(x), y_axis.place(mean)
    dot = (float(across[0]) / 10, float(down[0])) if len(x) == 1 else None
    # x counts steps or directions; four digits of y are read out
    hover = rounded(px=(across / 10, 2), py=(down, 1), x=(x, 0)) | {"y": [float(f"{value:.4g}") for value in mean]}
    return Drawn(
        curve.label,
        curve.role,
        "" if dot else polyline(across, down),
        band(across, y_axis.place(least), y_axis.place(most)) if len(x) < len(curve.x) else "",
        dot,
        end,
        hover,
    )


def rounded(**columns: tuple[np.ndarray, int]) -> dict[str, list[float]]:
    """Plain floats for the page, short: each array with its number of digits."""
    return {name: np.round(values, digits).tolist() for name, (values, digits) in columns.items()}


def bucket(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, mean, least and most of y over at most `MOST_POINTS` runs of neighbouring points."""
    if len(x) <= MOST_POINTS:
        return x, y, y, y
    starts = np.unique(np.linspace(0, len(x), MOST_POINTS, endpoint=False).astype(int))
    sizes = np.diff(np.append(starts, len(x)))
    centre = np.add.reduceat(x, starts) / sizes
    centre[0], centre[-1] = x[0], x[-1]
    mean = np.add.reduceat(y, starts) / sizes
    return centre, mean, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)


def polyline(across: np.ndarray, down: np.ndarray) -> str:
    """An SVG path through the points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, down, strict=True))


def band(across: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """An SVG path around the area between two curves."""
    return polyline(np.concatenate([across, across[::-1]]), np.concatenate([low, high[::-1]])) + "Z"


def spread(places: Sequence[float], height: float) -> list[float]:
    """Label places moved apart so that none covers another, in the order given."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, dtype=np.float64)[order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + LABEL_HEIGHT)
    moved -= max(0.0, moved[-1] - height)
    result = np.empty_like(moved)
    result[order] = moved
    return [float(place) for place in result]


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2, 2.5 or 5 times a power of ten inside [low, high]."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [index * step for index in range(first, last + 1)]
    return []


def whole_ticks(axis: Axis) -> list[float]:
    """Ticks of an axis that counts: steps or dimensions."""
    if axis.high - axis.low <= 2:
        return [value for value in np.arange(math.ceil(axis.low), axis.high + 0.5) if axis.low < value < axis.high]
    return [tick for tick in nice_ticks(axis.low, axis.high, 5) if tick == round(tick)]


def value_ticks(axis: Axis) -> list[tuple[float, str]]:
    """Ticks of the vertical axis in their places, with their labels."""
    if not axis.log:
        return axis.label(nice_ticks(axis.low, axis.high, 4))
    low, high = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    powers = range(high, low - 1, -max(1, math.ceil((high - low + 1) / 5)))
    if len(powers) < 2:
        return axis.label(nice_ticks(axis.low, axis.high, 3))
    return axis.label([10.0**power for power in powers], [power_label(power) for power in powers])


def power_label(power: int) -> str:
    """'0.01', '1', '100' near one, '10⁻⁴' elsewhere."""
    return f"{10.0**power:,g}" if -2 <= power <= 3 else f"10{superscript(power)}"


def short_number(value: float) -> str:
    """A tick label: 0, 0.25, 1,500, 20k, 1.5M."""
    value = 0.0 if abs(value) < 1e-12 else float(f"{value:.10g}")
    for start, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= start:
            return f"{value / size:g}{letter}"
    return f"{value:,.10g}" if abs(value) >= 1e-3 or value == 0 else plain(value)


def in_words(curve: Curve, x_label: str) -> str:
    """The curve for those who cannot see it."""
    first, last = float(curve.y[0]), float(curve.y[-1])
    name = curve.label or "value"
    if len(curve.x) == 1:
        return f"{name}: {plain(last)} at {x_label} {plain(float(curve.x[0]))}."
    return (
        f"{name}: from {plain(first)} at {x_label} {plain(float(curve.x[0]))} to {plain(last)} at {x_label} "
        f"{plain(float(curve.x[-1]))}, between {plain(float(curve.y.min()))} and {plain(float(curve.y.max()))}."
    )


def spectrum_chart(
    key: str, title: str, role: str, shares: np.ndarray, untrained: np.ndarray | None, rank: float | None, lowest: float
) -> Chart | None:
    """Singular values as `shares` of the largest on a log axis that reaches to `lowest`; `rank` is marked."""
    curves = [Curve("share", role, np.arange(1, len(shares) + 1), shares)]
    if untrained is not None:
        curves.insert(0, Curve("untrained", f"reference {role}", np.arange(1, len(untrained) + 1), untrained))
    return line_chart(
        key,
        title,
        curves,
        x_label="direction",
        height=220,
        log=True,
        y_range=[lowest],
        marks=[] if rank is None else [(rank, f"effective rank {plain(round(rank))}")],
        latest=f"{len(shares):,} directions",
    )


def relative(spectrum: np.ndarray | None) -> np.ndarray | None:
    """Sorted singular values over the largest, rounding errors held at the floor; None without any."""
    if spectrum is None or not np.isfinite(spectrum).any():
        return None
    values = np.sort(spectrum[np.isfinite(spectrum)].astype(np.float64))[::-1]
    return np.maximum(values / (values[0] or 1.0), FLOOR)


def histogram(key: str, title: str, role: str, values: np.ndarray, target: float | None = None) -> Chart | None:
    """Standard deviations of all dimensions, counted from zero; `target` is marked and always inside."""
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return None
    high = 1.05 * max(float(values.max()), target or 0.0) or 1.0
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, high))
    x_axis, y_axis = Axis(0.0, high, WIDTH), Axis(0.0, 1.08 * counts.max(), 120, flipped=True)
    least, median, most = (plain(float(value)) for value in np.quantile(values, [0, 0.5, 1]))
    return Chart(
        key,
        title,
        120,
        [bars(role, counts, edges, x_axis, y_axis)],
        x_axis.label(nice_ticks(0.0, high, 5)),
        y_axis.label(whole_ticks(y_axis)[-1:]),
        "standard deviation",
        f"median {median}",
        f"{len(values):,} dimensions between {least} and {most}, half of them under {median}.",
        [] if target is None else x_axis.label([target], [f"target {plain(target)}"]),
        filled=True,
    )


def bars(role: str, counts: np.ndarray, edges: np.ndarray, x_axis: Axis, y_axis: Axis) -> Drawn:
    """Touching bars as one path; hovering reads out the edges and the count."""
    across, down = x_axis.place(edges), y_axis.place(counts)
    steps = "".join(f"V{y:.1f}H{x:.1f}" for x, y in zip(across[1:], down, strict=True))
    area = f"M0 {y_axis.length:.0f}{steps}V{y_axis.length:.0f}Z"
    ranges = [f"{plain(float(low))} to {plain(float(up))}" for low, up in pairwise(edges)]
    middles = rounded(px=((across[1:] + across[:-1]) / 20, 2), py=(down, 1))
    return Drawn("dimensions", role, "", area, None, 0.0, {**middles, "x": ranges, "y": counts.tolist()})


@dataclass(frozen=True)
class HeatMap:
    """A correlation matrix as a picture whose zero is transparent, so that it suits both themes."""

    key: str
    title: str
    picture: str  # data URI, one pixel a pair
    dimensions: list[int]  # which dimension each row and column is
    off_diagonal: float  # mean absolute value
    values: str  # base64 of int8 rows, hundredths; -128 where the correlation is not defined

    @property
    def mean_text(self) -> str:
        """The mean size of the correlations off the diagonal."""
        return plain(round(self.off_diagonal, 3)) if math.isfinite(self.off_diagonal) else "not defined"

    @property
    def hover(self) -> dict[str, Any]:
        """What the script needs to read values out."""
        return {"dimensions": self.dimensions, "values": self.values}


def heat_map(key: str, title: str, correlation: np.ndarray) -> HeatMap:
    """(k, k) correlations as a picture, dimensions that go together placed side by side."""
    square = correlation[: min(correlation.shape), : min(correlation.shape)]
    order = together(square)
    sorted_square = np.clip(square[np.ix_(order, order)], -1, 1)
    off = np.abs(square[~np.eye(len(square), dtype=bool)])
    mean = float(np.nanmean(off)) if np.isfinite(off).any() else float("nan")
    hundredths = np.where(np.isfinite(sorted_square), np.rint(100 * np.nan_to_num(sorted_square)), -128)
    values = base64.b64encode(hundredths.astype(np.int8).tobytes()).decode()
    return HeatMap(key, title, data_uri(diverging(sorted_square), "PNG"), order.tolist(), mean, values)


def together(correlation: np.ndarray) -> np.ndarray:
    """An order of dimensions that puts correlated ones side by side: by angle between the two leading eigenvectors.

    Source: Friendly, Corrgrams, The American Statistician 56 (2002).
    """
    filled = np.nan_to_num(correlation)
    _, vectors = np.linalg.eigh((filled + filled.T) / 2)
    angle = np.arctan2(vectors[:, -2], vectors[:, -1]) if len(filled) > 1 else np.zeros(1)
    order = np.argsort(angle, kind="stable")
    widest = np.argmax(np.diff(angle[order], append=angle[order[0]] + 2 * np.pi))  # cut the circle where it is empty
    return np.roll(order, -(int(widest) + 1))


def diverging(correlation: np.ndarray) -> np.ndarray:
    """(k, l) values in [-1, 1] -> (k, l, 4) uint8: the hue is the sign, the opacity the size; grey where undefined."""
    size = np.abs(np.nan_to_num(correlation))
    colour = np.where((np.nan_to_num(correlation) >= 0)[..., None], POSITIVE, NEGATIVE)
    pixels = np.concatenate([colour, 255 * size[..., None]], axis=-1)
    pixels[~np.isfinite(correlation)] = UNDEFINED
    return np.rint(pixels).astype(np.uint8)


def colour_scale() -> str:
    """The colours from -1 to 1 as a strip, a data URI."""
    return data_uri(diverging(np.linspace(-1, 1, 181)[None]), "PNG")


def glyph(verdict: str) -> list[tuple[float, float, float]]:
    """Dots (x, y, radius) in a circle of radius 46 around (50, 50): a cloud, a line or a single point."""
    turns = np.arange(90)
    radius, angle = 41 * np.sqrt((turns + 0.5) / len(turns)), turns * np.pi * (3 - np.sqrt(5))
    if verdict == "complete collapse":
        return [(50.0, 50.0, 5.0)]
    if verdict == "dimensional collapse":
        along = np.linspace(-41, 41, 30)
        across = 1.6 * np.sin(7.0 * turns[:30])
        return [(50 + 0.87 * a + 0.5 * b, 50 - 0.5 * a + 0.87 * b, 1.7) for a, b in zip(along, across, strict=True)]
    return [(50 + r * np.cos(t), 50 + r * np.sin(t), 1.7) for r, t in zip(radius, angle, strict=True)]
