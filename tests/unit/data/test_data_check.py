"""The check before training says what is wrong, and only that."""

import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from fullrank.data import open_source
from fullrank.data.arrays import Arrays
from fullrank.data.check import check_source
from tests.unit.data.picture_files import encoded, noise, npy, png16, write_folder


def said(check):
    text = io.StringIO()
    Console(width=200, file=text).print(check.render())
    return text.getvalue()


def check_folder(tmp_path, files, **options):
    return check_source(open_source(write_folder(tmp_path, files)), **options)


def test_a_sound_set(tmp_path):
    files = {f"{'cat' if i % 3 else 'dog'}/{i}.png": encoded(noise(i)) for i in range(30)}
    check = check_folder(tmp_path, files | {"notes.txt": b"x"}, batch_size=10)
    assert check.ok
    assert not check.warnings
    assert (check.count, check.looked_at) == (30, 30)
    assert check.sizes == [(12, 10)] * 3
    assert check.modes == {"RGB": 30}
    assert check.class_counts == {"cat": 20, "dog": 10}
    assert check.ignored == {".txt": 1}
    text = said(check)
    assert "ready to train" in text
    assert "12 x 10" in text
    assert "2, with 10 to 20 pictures" in text
    assert json.loads(json.dumps(check.to_dict()))["pixels"]["channels"] == 3


def test_mixed_sizes_modes_and_depths(tmp_path):
    files = {
        "a.png": encoded(noise(0, 10, 10)),
        "b.png": encoded(noise(1, 20, 30, 4)),
        "c.png": encoded(noise(2, 40, 50, 1)),
        "d.jpg": encoded(noise(4), "JPEG"),
    }
    check = check_folder(tmp_path, files)
    assert check.ok
    assert check.sizes == [(10, 10), (20, 30), (40, 50)]
    assert check.modes == {"RGB": 2, "RGBA": 1, "L": 1}
    assert check.channels == {3: 3, 1: 1}
    assert any("1 grey pictures among colour ones" in w for w in check.warnings)
    assert "10 x 10 to 40 x 50, median 20 x 30" in said(check)


def test_unreadable_pictures_are_named_and_too_many_are_a_problem(tmp_path):
    good = {f"{i}.png": encoded(noise(i)) for i in range(30)}
    check = check_folder(tmp_path, good | {"x.png": b"", "y.jpg": b"text"})
    assert check.ok
    assert dict(check.unreadable) == {"x.png": "the file is empty (0 bytes)", "y.jpg": "this is not an image"}
    (warning,) = check.warnings
    assert warning.startswith("2 of 32 pictures cannot be read and will be skipped: 'x.png': the file is empty")
    check = check_folder(tmp_path, {f"z{i}.png": b"text" for i in range(3)})
    assert not check.ok
    assert "5 of 35 pictures cannot be read, too many to go on" in check.problems[0]
    shutil.rmtree(tmp_path)
    check = check_folder(tmp_path, {"a.png": b""})
    assert "1 of 1 pictures cannot be read" in check.problems[0]
    assert "ready" not in said(check)


def test_duplicates_are_found_by_their_pixels(tmp_path):
    files = {"a.png": encoded(noise(0)), "b.bmp": encoded(noise(0), "BMP"), "c.png": encoded(noise(1))}
    flat = noise(0, channels=1)
    files |= {"d.png": encoded(flat), "e.png": encoded(flat.reshape(10, 12, 1))}  # same bytes, another shape
    check = check_folder(tmp_path, files)
    assert check.duplicates == [("b.bmp", "a.png")]
    assert any("1 of 5 pictures are exact duplicates of another one: b.bmp = a.png" in w for w in check.warnings)


def test_identical_and_constant_sets_are_problems():
    grey = check_source(Arrays(np.full((64, 8, 8), 128, np.uint8)))
    assert grey.problems == ["every picture is of one colour: there is nothing to learn"]
    same = check_source(Arrays(np.stack([noise(0)] * 64)))
    assert same.problems == ["all 64 pictures are identical: there is nothing to tell apart"]
    some = np.stack([noise(i) for i in range(64)])
    some[3], some[9] = 7, 9
    check = check_source(Arrays(some))
    assert check.ok
    assert check.constant == ["3", "9"]
    assert check.warnings == ["2 of 64 pictures are of one colour: 3, 9"]


def test_a_batch_larger_than_the_set():
    source = Arrays(np.stack([noise(i) for i in range(20)]))
    assert check_source(source, batch_size=20).ok
    (problem,) = check_source(source, batch_size=21).problems
    assert problem == "the batch of 21 is larger than the set of 20 pictures; use --batch_size 20 or less"


def test_sixteen_bit_pictures_without_contrast_are_named():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60_000, (30, 16, 16), dtype=np.uint16)
    images[4] = rng.integers(1, 255, (16, 16))  # 8-bit values
    images[7] = rng.integers(33_000, 33_400, (16, 16))  # a little around an offset
    check = check_source(Arrays(images))
    assert check.faint == ["4", "7"]
    assert check.warnings[0].startswith("2 of 30 pictures are almost without contrast between")
    assert "uint16; " in said(check)


def test_eight_bit_masks_are_named_as_nearly_black():
    check = check_source(Arrays(np.random.default_rng(0).integers(0, 2, (20, 16, 16), dtype=np.uint8)))
    assert any("almost without contrast (scale their values up)" in w for w in check.warnings)


def test_kinds_that_cannot_be_mixed_are_a_problem_with_a_way_out(tmp_path):
    files = {"a.png": png16(noise(0, dtype=np.uint16)), "b.npy": npy(noise(1, 30, 30, 13, np.uint16))}
    check = check_folder(tmp_path, files)
    assert check.pixels is None
    assert "channels are mixed; choose those of one kind with --include" in check.problems[0]


def test_unbalanced_classes(tmp_path):
    files = {f"{'many' if i else 'one'}/{i}.png": encoded(noise(i)) for i in range(12)}
    assert check_folder(tmp_path, files).warnings == ["classes are unbalanced: 'many' has 11, 'one' 1"]


def test_large_sets_are_sampled_and_time_is_kept():
    source = Arrays(np.random.default_rng(0).integers(0, 255, (300, 8, 8), dtype=np.uint8))
    check = check_source(source, sample=100)
    assert (check.count, check.looked_at) == (300, 100)
    assert "300, 100 of them looked at" in said(check)
    assert check.to_dict() == check_source(source, sample=100).to_dict()
    assert check_source(source, seconds=0).looked_at == 1


def test_pixels_are_not_those_of_the_first_class():
    images = np.random.default_rng(0).integers(0, 50, (3000, 4, 4), dtype=np.uint8)
    images[1500:] += 200
    check = check_source(Arrays(images))
    assert check.looked_at == 3000
    assert check.pixels.mean[0] == pytest.approx(images.mean() / 255, abs=0.05)


@pytest.mark.parametrize("name", ["[red]a.png", "a[/].png"])
def test_names_are_not_taken_for_markup(tmp_path, name):
    folder = tmp_path / name.split(".")[0].replace("/", "")
    check = check_folder(folder, {name.replace("/", ""): b"", "b.png": encoded(noise(0))})
    assert name.replace("/", "") in said(check)
