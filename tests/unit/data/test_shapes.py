"""The embedded set: the same everywhere, true to its factors, and hard for a comparison of pixels."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fullrank.data import open_source
from fullrank.data.rendering import FIGURES
from fullrank.data.shapes import FACTORS, Shapes
from fullrank.errors import InputError
from fullrank.evaluation import knn

SET = Shapes(600)


def test_a_picture_is_the_same_in_any_company():
    few = Shapes(7)
    for index in range(7):
        np.testing.assert_array_equal(few.read(index), SET.read(index))
    assert few.labels.tolist() == SET.labels[:7].tolist()
    assert few.captions == SET.captions[:7]


def test_another_process_makes_the_same_pictures():
    code = (
        "import hashlib; from fullrank.data.shapes import Shapes; print(hashlib.md5(Shapes(50).images()).hexdigest())"
    )
    made = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)]
    assert made == [hashlib.md5(Shapes(50).images()).hexdigest() + "\n"] * 2


def test_workers_get_a_small_copy_that_reads_the_same():
    SET.images()
    sent = pickle.dumps(SET)
    assert len(sent) < SET.images().nbytes / 2
    np.testing.assert_array_equal(pickle.loads(sent).read(11), SET.read(11))


def test_splits_and_seeds_share_no_picture():
    pictures = {
        part: {picture.tobytes() for picture in Shapes(300, split=part[0], seed=part[1]).images()}
        for part in [("train", 0), ("test", 0), ("train", 1)]
    }
    sets = list(pictures.values())
    assert all(len(one) == 300 for one in sets)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]


@pytest.mark.parametrize("size", [16, 32, 96])
def test_any_size_shows_the_same_scene(size):
    large = Shapes(20, size=96)
    scaled = Shapes(20, size=size)
    assert scaled.read(0).shape == (size, size, 3)
    for index in range(20):
        covered = (scaled.mask(index) > 0).mean(), (large.mask(index) > 0).mean()
        assert abs(covered[0] - covered[1]) < 0.06


def test_labels_are_balanced_and_say_what_is_drawn():
    counts = np.bincount(Shapes(4000).labels, minlength=len(FIGURES))
    assert counts.min() > 400
    for label, sentences in zip(SET.labels[:100], SET.captions, strict=False):
        assert len(set(sentences)) == 5
        assert all(FIGURES[label] in sentence for sentence in sentences)


def test_boxes_hold_their_figures():
    for index in range(40):
        mask = SET.mask(index)
        boxes = SET.boxes(index)
        numbers = np.unique(mask[mask > 0])
        assert len(boxes) == len(numbers) >= 1
        for number, (left, top, right, bottom) in zip(numbers, boxes, strict=True):
            inside = np.zeros_like(mask, dtype=bool)
            inside[top:bottom, left:right] = True
            assert not (mask == number)[~inside].any()
            assert (mask == number)[top].any()
            assert (mask == number)[:, right - 1].any()


def test_factors_are_what_the_pixels_show():
    pictures = Shapes(300, size=64)
    discs = np.flatnonzero(pictures.labels == FIGURES.index("disc"))
    for index in discs:
        first = pictures.mask(index) == 1  # later figures may hide a part of it
        x, y = pictures.factors["x"][index] * 64, pictures.factors["y"][index] * 64
        size = pictures.factors["size"][index] * 64
        if min(x, y, 64 - x, 64 - y) > size:
            assert first.sum() == pytest.approx(np.pi * (0.9 * size) ** 2, rel=0.2)
            assert np.nonzero(first)[1].mean() + 0.5 == pytest.approx(x, abs=1.5)
            assert np.nonzero(first)[0].mean() + 0.5 == pytest.approx(y, abs=1.5)


def test_every_factor_is_named_and_measured():
    assert SET.factors.keys() == FACTORS.keys() == SET.factor_kinds.keys()
    assert all(values.shape == (600,) for values in SET.factors.values())
    assert all(SET.factors[name].min() >= 0 and SET.factors[name].max() <= 2 * np.pi for name in ("hue", "light"))


def test_pixels_say_little_about_the_label():
    train, test = Shapes(3000), Shapes(500, split="test")
    pixels = [part.images().reshape(len(part), -1) / 255 - 0.5 for part in (train, test)]
    score = knn(pixels[0], train.labels, pixels[1], test.labels, k=(20,)).scores["top1"]
    assert score < 30  # of 100, where 12.5 is chance


def test_the_command_line_name():
    opened = open_source("shapes:N=40,size=24,seed=2", "test")
    assert (len(opened), opened.read(0).shape, opened.name) == (40, (24, 24, 3), "shapes[test]")
    with pytest.raises(InputError, match="did you mean 'size'"):
        open_source("shapes:siez=3")
    with pytest.raises(InputError, match="whole number"):
        open_source("shapes:N=many")
    with pytest.raises(InputError, match="at least 8 pixels"):
        open_source("shapes:size=4")
    with pytest.raises(InputError, match="did you mean 'train'"):
        open_source("shapes", "trian")
