"""The look at a data set before an hour is lost on it."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fullrank.data.loading import MAX_UNREADABLE
from fullrank.data.source import Source, UnreadableImage
from fullrank.data.statistics import SAMPLE, Pixels, PixelSample, sampled_indices
from fullrank.data.streams import Stream
from fullrank.errors import InputError

FULL_SCAN = 20_000
"""Sets up to this size are looked at whole; of larger ones, so many pictures."""
STREAM_SAMPLE = 1_000
NAMED = 5
"""How many offenders a report names."""
CLIPPED = 0.5
"""The share of pixels beyond the limits of the set above which a picture counts as faint."""
FAINT = 0.01
"""The standard deviation, where the set goes from 0 to 1, below which a picture counts as faint."""
IMBALANCE = 10


@dataclass
class SourceCheck:
    """What was found; `problems` make training pointless, `warnings` are worth a look.

    Attributes:
        name, count: what was looked at; the count is None for a stream.
        looked_at: pictures decoded; duplicates and unreadable files are counted among them.
        sizes: (height, width) of the smallest, the median and the largest picture, by area.
        channels: channels that pictures have, with the numbers of pictures.
        modes: stored formats such as `RGB`, `CMYK` or `uint16`, with their numbers.
        duplicates: pictures whose pixels are exactly those of an earlier one: (name, earlier name).
        constant: names of pictures of one colour.
        faint: names of pictures with next to no contrast once the set is scaled to [0, 1].
        unreadable: (name, reason).
        class_counts: pictures of every class, by name, over the whole set.
        ignored: endings of files that are no pictures, with their numbers.
        pixels: the format of the set, or None when it has none.
        steps, seconds: of a planned run, filled in by whoever knows its speed.
    """

    name: str
    count: int | None
    looked_at: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    channels: dict[int, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    faint: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    class_counts: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    pixels: Pixels | None = None
    steps: int | None = None
    seconds: float | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against training."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self) | {"ok": self.ok}

    def render(self) -> RenderableType:
        """A short table and the remarks, for a rich console."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        for key, value in _rows(self):
            table.add_row(key, escape(value))
        remarks = [f"[bold red]problem[/] {escape(text)}" for text in self.problems]
        remarks += [f"[yellow]warning[/] {escape(text)}" for text in self.warnings]
        verdict = "" if self.problems else "[green]ready to train[/]" + (", with the warnings above" if remarks else "")
        return Group(f"[bold]{escape(self.name)}[/]", table, *remarks, *([verdict] if verdict else []))


def check_source(
    source: Source | Stream,
    *,
    sample: int = FULL_SCAN,
    seconds: float = 20.0,
    batch_size: int | None = None,
) -> SourceCheck:
    """Decode pictures of `source` and say what they are and what is wrong.  Nothing is written.

    Args:
        source: the set; of a stream, the first pictures are looked at.
        sample: up to so many pictures, drawn at random with a fixed seed; all of a smaller set.
        seconds: looking stops after this time; `looked_at` says how far it came.
        batch_size: of the planned run, which must not be larger than the set.
    """
    pictures = source.first(min(sample, STREAM_SAMPLE)) if isinstance(source, Stream) else source
    check = SourceCheck(source.name, None if isinstance(source, Stream) else len(source))
    check.ignored = dict(getattr(getattr(source, "origin", source), "ignored", {}))
    _look(check, pictures, sample, seconds)
    if pictures.labels is not None and check.count is not None:
        counts = np.bincount(pictures.labels[pictures.labels >= 0], minlength=len(pictures.classes))
        check.class_counts = dict(zip(pictures.classes, counts.tolist(), strict=False))
    if batch_size is not None and check.count is not None and batch_size > check.count:
        check.problems.append(
            f"the batch of {batch_size:,} is larger than the set of {check.count:,} pictures;"
            f" use --batch_size {check.count} or less"
        )
    _judge(check)
    return check


def _look(check: SourceCheck, source: Source, sample: int, seconds: float) -> None:
    """Decode the sample; fills in everything that pictures say."""
    measured, thinned = PixelSample(), []
    modes: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    sizes: list[tuple[int, int]] = []
    alike: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, image, mode in _decoded(check, source, sample, seconds):
        height, width, depth = image.shape
        modes[mode] += 1
        channels[depth] += 1
        sizes.append((height, width))
        pixels = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        alike[image.shape, image.dtype.str, pixels].append(name)
        if (image == image[0, 0]).all():
            check.constant.append(name)
        if measured.images < SAMPLE:
            measured.add(name, image)
            thinned.append((name, image.reshape(-1, depth)[:: image.size // 30_000 + 1].copy()))
    check.modes, check.channels = dict(modes.most_common()), dict(channels.most_common())
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    check.sizes = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if sizes else []
    check.duplicates = sorted((name, names[0]) for names in map(sorted, alike.values()) for name in names[1:])
    try:
        check.pixels = measured.pixels() if measured.images else None
    except InputError as error:
        check.problems.append(str(error))
    if check.pixels:
        check.faint = sorted(name for name, values in thinned if _is_faint(check.pixels, values))
    check.constant.sort()
    check.unreadable.sort()


def _decoded(check: SourceCheck, source: Source, sample: int, seconds: float) -> Iterator[tuple[str, np.ndarray, str]]:
    """Name, picture and mode while time lasts; counts the pictures, and notes the unreadable ones."""
    stop = time.monotonic() + seconds
    for index in sampled_indices(len(source), sample):
        if check.looked_at and time.monotonic() > stop:
            return
        check.looked_at += 1
        try:
            yield source.names[index], *source.look(index)
        except UnreadableImage as error:
            check.unreadable.append((error.name, error.reason))


def _is_faint(pixels: Pixels, values: np.ndarray) -> bool:
    """Whether a picture's values, (pixels, channels), nearly vanish in the limits of the set."""
    if float(pixels.to_unit(values[None]).std()) < FAINT:
        return True
    if values.dtype == np.uint8 or values.shape[1] != pixels.channels:
        return False
    return max(float((values < pixels.low).mean()), float((values > pixels.high).mean())) > CLIPPED


def _judge(check: SourceCheck) -> None:
    """Problems and warnings from what was found."""
    readable = check.looked_at - len(check.unreadable)
    _judge_unreadable(check, readable)
    if not readable:
        return
    if len(check.constant) == readable:
        check.problems.append("every picture is of one colour: there is nothing to learn")
    elif readable > 1 and len(check.duplicates) == readable - 1:
        check.problems.append(f"all {readable:,} pictures are identical: there is nothing to tell apart")
    _warn(check, check.constant, "of one colour")
    if len(check.duplicates) < readable - 1:
        _warn(check, [f"{a} = {b}" for a, b in check.duplicates], "exact duplicates of another one")
    varied = [name for name in check.faint if name not in set(check.constant)]
    _warn(check, varied, f"almost without contrast {_limits(check.pixels)}")
    _warn_of_format(check)
    _warn_of_classes(check)


def _judge_unreadable(check: SourceCheck, readable: int) -> None:
    if not check.unreadable:
        return
    said = f"{len(check.unreadable):,} of {check.looked_at:,} pictures cannot be read"
    examples = "; ".join(f"'{name}': {reason}" for name, reason in check.unreadable[:NAMED])
    if len(check.unreadable) > MAX_UNREADABLE * check.looked_at:
        check.problems.append(f"{said}, too many to go on: {examples}")
    elif readable:
        check.warnings.append(f"{said} and will be skipped: {examples}")


def _warn(check: SourceCheck, names: list[str], what: str) -> None:
    if names:
        some = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        check.warnings.append(f"{len(names):,} of {check.looked_at:,} pictures are {what}: {some}")


def _warn_of_format(check: SourceCheck) -> None:
    pixels = check.pixels
    if pixels and set(check.channels) == {1, 3}:
        check.warnings.append(f"{check.channels[1]:,} grey pictures among colour ones become grey with 3 channels")
    if pixels and pixels.depth == "uint8" and max(np.array(pixels.mean) + 3 * np.array(pixels.std)) < 0.1:
        check.warnings.append("the pictures are nearly black: do the values use only a part of 0 to 255?")


def _warn_of_classes(check: SourceCheck) -> None:
    counts = {name: n for name, n in check.class_counts.items() if n}
    if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        check.warnings.append(f"classes are unbalanced: '{most}' has {counts[most]:,}, '{least}' {counts[least]:,}")


def _rows(check: SourceCheck) -> list[tuple[str, str]]:
    count = "unknown (a stream)" if check.count is None else f"{check.count:,}"
    seen = "" if check.looked_at == check.count else f", {check.looked_at:,} of them looked at"
    rows = [("pictures", count + seen)]
    if check.sizes:
        small, middle, large = (f"{h} x {w}" for h, w in check.sizes)
        rows.append(("size", small if small == large else f"{small} to {large}, median {middle}"))
        rows.append(("stored as", ", ".join(f"{mode} ({n:,})" for mode, n in check.modes.items())))
    if check.pixels:
        rows += _pixel_rows(check.pixels)
    if check.class_counts:
        least, most = min(check.class_counts.values()), max(check.class_counts.values())
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        rows.append(("classes", f"{len(check.class_counts):,}, with {each} pictures"))
    if check.ignored:
        rows.append(("left aside", ", ".join(f"{n:,} {ending}" for ending, n in check.ignored.items())))
    if check.steps is not None:
        time_left = "" if check.seconds is None else f", about {_duration(check.seconds)}"
        rows.append(("the run", f"{check.steps:,} steps{time_left}"))
    return rows


def _pixel_rows(pixels: Pixels) -> list[tuple[str, str]]:
    values = f"{pixels.channels} channel{'s' * (pixels.channels > 1)}, {pixels.depth}"
    if pixels.depth != "uint8":
        values += f"; {min(pixels.low):g} to {max(pixels.high):g} become 0 to 1"
    numbers = ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in list(zip(pixels.mean, pixels.std, strict=True))[:3])
    more = ", ..." if pixels.channels > 3 else ""
    return [("pixels", values), ("mean ± std", f"{numbers}{more} ({pixels.normalisation})")]


def _limits(pixels: Pixels | None) -> str:
    if pixels is None or pixels.depth == "uint8":
        return "(scale their values up)"
    return f"between {min(pixels.low):g} and {max(pixels.high):g}, the limits of this set (scale each kind by itself)"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
