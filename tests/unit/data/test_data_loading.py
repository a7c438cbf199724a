"""Pictures into one tensor, or through workers; and what happens to broken ones."""

import logging

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional

from fullrank.data import loading, open_source
from fullrank.data.arrays import Arrays
from fullrank.data.loading import Decoded, choose_placement, load_in_memory
from fullrank.data.statistics import measure_pixels
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, npy, write_folder


def names(count, broken=()):
    return {f"{i:03d}.png": b"broken" if i in broken else encoded(noise(i)) for i in range(count)}


@pytest.fixture
def partly_broken(tmp_path):
    """40 pictures, of which 3, 4 and 25 cannot be read."""
    return open_source(write_folder(tmp_path, names(40, broken=(3, 4, 25))))


def test_every_readable_picture_is_loaded_with_its_number(partly_broken, caplog):
    with caplog.at_level(logging.WARNING):
        images, kept = load_in_memory(partly_broken, measure_pixels(partly_broken), 32)
    assert kept.tolist() == [i for i in range(40) if i not in (3, 4, 25)]
    assert images.dtype == torch.uint8
    for row, index in zip(images, kept, strict=True):
        np.testing.assert_array_equal(row.permute(1, 2, 0).numpy(), noise(int(index)))
    assert "left out 3 of 40 pictures: cannot read '003.png': this is not an image" in caplog.text


def test_too_many_broken_pictures_are_an_error(tmp_path):
    source = open_source(write_folder(tmp_path, names(20, broken=(1, 2, 3))))
    pixels = measure_pixels(source)
    message = r"3 of 20 pictures of .* cannot be read \('001.png', '002.png', '003.png', ...\)"
    with pytest.raises(InputError, match=message):
        load_in_memory(source, pixels, 32)
    decoded = Decoded(source, pixels, torch.clone)
    with pytest.raises(InputError, match=message):
        [decoded[i] for i in range(20)]


def test_deep_pictures_keep_more_than_eight_bits():
    images = np.random.default_rng(0).integers(0, 4096, (6, 16, 16, 2), dtype=np.uint16)
    source = Arrays(images)
    pixels = measure_pixels(source)
    loaded, _ = load_in_memory(source, pixels, 32)
    assert loaded.dtype == torch.float16
    expected = np.stack([pixels.to_unit(i) for i in images]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(loaded.numpy(), expected, atol=2.0**-12)
    assert len(np.unique(loaded.numpy())) > 500


def test_sizes_that_differ_are_resized_by_the_short_side_and_cut(tmp_path):
    tall = noise(1, 40, 20)
    source = open_source(write_folder(tmp_path, {"a.png": encoded(noise(0, 16, 16)), "b.png": encoded(tall)}))
    images, _ = load_in_memory(source, measure_pixels(source), 16)
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), noise(0, 16, 16))
    resized = functional.resize(torch.from_numpy(tall).permute(2, 0, 1), [32, 16], antialias=True)
    torch.testing.assert_close(images[1], resized[:, 8:24])


def test_placement_is_chosen_by_size_and_memory(tmp_path, monkeypatch):
    same = open_source(np.zeros((100, 32, 32, 3), np.uint8))
    pixels = measure_pixels(same)
    assert choose_placement(same, pixels, 32) == (
        "memory",
        "all pictures have one size and take 0 MiB decoded",
    )
    monkeypatch.setattr(loading, "available_memory", lambda: 1 << 20)
    assert choose_placement(same, pixels, 32)[0] == "workers"
    assert choose_placement(same, pixels, 32, forced="memory")[0] == "memory"
    monkeypatch.setattr(loading, "available_memory", lambda: 100_000)
    with pytest.raises(InputError, match="decoded, more than is free; use workers"):
        choose_placement(same, pixels, 32, forced="memory")
    monkeypatch.undo()
    assert choose_placement(same, pixels, 32, forced="workers") == ("workers", "asked for")
    with pytest.raises(InputError, match=r"unknown placement 'memry': did you mean 'memory'\?"):
        choose_placement(same, pixels, 32, forced="memry")


def test_placement_of_mixed_sizes(tmp_path):
    mixed = open_source(write_folder(tmp_path, {"a.png": encoded(noise(0, 16, 16)), "b.png": encoded(noise(1))}))
    pixels = measure_pixels(mixed)
    assert choose_placement(mixed, pixels, 24)[0] == "workers"
    placement, reason = choose_placement(mixed, pixels, 24, forced="memory")
    assert placement == "memory"
    assert "every picture is resized and cut to 24 x 24" in reason


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_replace_broken_pictures_and_count_them(partly_broken, workers):
    decoded = Decoded(partly_broken, measure_pixels(partly_broken), lambda image: image.clone())
    loader = DataLoader(decoded, batch_size=8, num_workers=workers, multiprocessing_context="fork" if workers else None)
    seen = []
    for images, indices in loader:
        seen += indices.tolist()
        for image, index in zip(images, indices.tolist(), strict=True):
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), noise(index))
    assert len(seen) == 40
    assert not {3, 4, 25} & set(seen)
    assert [i for i in range(40) if i not in (3, 4, 25)] == [i for k, i in enumerate(seen) if k not in (3, 4, 25)]
    assert decoded.unreadable() == ["003.png", "004.png", "025.png"]
    again = Decoded(partly_broken, measure_pixels(partly_broken), lambda image: image.clone())
    assert [again[i][1] for i in (3, 4, 25)] == [seen[i] for i in (3, 4, 25)]


def test_a_picture_of_another_kind_counts_as_unreadable(tmp_path):
    files = names(30) | {"030.npy": npy(noise(0, 20, 20, 7))}
    source = open_source(write_folder(tmp_path, files))
    pixels = measure_pixels(open_source(tmp_path, include="*.png"))
    decoded = Decoded(source, pixels, torch.clone)
    assert decoded[30][1] != 30
    assert decoded.unreadable() == ["030.npy"]
    _, kept = load_in_memory(source, pixels, 32)
    assert kept.tolist() == list(range(30))
