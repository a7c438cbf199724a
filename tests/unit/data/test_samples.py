"""So many of the pictures: always the same ones, in training and when they are judged."""

import numpy as np
import pytest
from PIL import Image

from fullrank.data import open_source
from fullrank.data.check import check_source
from fullrank.evaluation.splits import labelled_parts


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 20), ("test", 15)):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (8, 8), (number * 10, 50 * (label == "cat"), 90 * (split == "test")))
                picture.save(tmp_path / split / label / f"{number}.png")
    (tmp_path / "train/notes.txt").write_text("not a picture")
    return tmp_path


def test_the_same_pictures_each_time_and_fewer_among_more():
    few, more = (open_source("digits", samples=count) for count in (50, 200))
    assert len(few) == 50
    assert few.names == open_source("digits", samples=50).names
    assert set(few.names) < set(more.names)
    whole = open_source("digits")
    places = [whole.names.index(name) for name in few.names]
    assert places == sorted(places)
    assert few.labels.tolist() == whole.labels[places].tolist()
    assert np.array_equal(few.read(3), whole.read(places[3]))
    assert few.origin.names == whole.names
    assert max(places) > 1000  # not the first ones


def test_all_where_there_are_not_so_many(folder):
    assert len(open_source(folder, samples=1000)) == 40
    assert len(open_source(folder, samples=40)) == 40


def test_judged_on_as_many_at_the_most(folder):
    opened = {"data": str(folder), "samples": 10}
    source = open_source(**opened)
    train, test = labelled_parts(source, opened, most=(1000, 1000))
    assert len(train.indices) == 10
    assert len(test.indices) == 10
    assert all(name.startswith("test/") for name in test.source.names)
    assert check_source(source).ignored == {".txt": 1}


def test_lists_that_overlap_are_kept_apart_also_of_some(folder):
    """Files name the parts of a VOC set, and their pictures are in one folder: those that are judged are not learnt."""
    from fullrank.evaluation.splits import apart_from

    whole = open_source(folder, split="test")
    some = open_source(folder, split="test", samples=8)
    assert len(apart_from(some, np.arange(8), whole)) == 0
    assert len(apart_from(whole, np.arange(30), some)) == 22
