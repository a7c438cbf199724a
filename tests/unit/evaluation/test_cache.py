"""Features on the disk: the same as computed, never those of other weights, pictures or transforms."""

import numpy as np
import pytest
import torch

from fullrank.data import open_source
from fullrank.data.statistics import measure_pixels
from fullrank.evaluation import cache as caching
from fullrank.evaluation import features
from fullrank.evaluation.cache import FeatureCache
from fullrank.evaluation.features import Pictures, embed_blocks
from tests.unit.data.picture_files import encoded, noise, write_folder


class Counted(torch.nn.Module):
    """The mean colour, and how many pictures it was asked of."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        return images.mean((2, 3))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "set", {f"{n:02}.png": encoded(noise(n)) for n in range(10)})


@pytest.fixture
def blocks(monkeypatch):
    """Small blocks, so that there are several."""
    monkeypatch.setattr(features, "BLOCK", 4)
    assert caching.BLOCK > 4


def embedded(folder, tmp_path, weights="w", **transform):
    source = open_source(folder)
    network = Counted()
    pictures = Pictures(source, measure_pixels(source), 8)
    values, kept = embed_blocks(pictures, network, FeatureCache(weights, transform, tmp_path / "cache"))
    return values, kept, network.asked


def test_the_second_time_nothing_is_computed(folder, tmp_path, blocks):
    first, kept, asked = embedded(folder, tmp_path)
    again, kept_again, none = embedded(folder, tmp_path)
    assert (asked, none) == (10, 0)
    assert torch.equal(first, again)
    assert (kept == kept_again).all()


@pytest.mark.parametrize("change", [{"weights": "v"}, {"image_size": 9}])
def test_other_weights_and_transforms_have_features_of_their_own(change, folder, tmp_path, blocks):
    embedded(folder, tmp_path, image_size=8)
    assert embedded(folder, tmp_path, **({"image_size": 8} | change))[2] == 10


def test_a_changed_picture_is_seen_even_with_its_old_time_and_size(folder, tmp_path, blocks):
    import os

    first = embedded(folder, tmp_path)[0]
    path = folder / "05.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    other = encoded(noise(99))
    path.write_bytes(other[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _, asked = embedded(folder, tmp_path)
    assert asked == 4  # its block alone
    assert not torch.equal(first[5], again[5])


def test_it_goes_on_where_it_was_stopped(folder, tmp_path, blocks, monkeypatch):
    class Stopping(Counted):
        def forward(self, images):
            if self.asked >= 8:
                raise KeyboardInterrupt
            return super().forward(images)

    source = open_source(folder)
    pictures = Pictures(source, measure_pixels(source), 8)
    with pytest.raises(KeyboardInterrupt):
        embed_blocks(pictures, Stopping(), FeatureCache("w", {}, tmp_path / "cache"))
    assert embedded(folder, tmp_path)[2] == 2


def test_unreadable_pictures_stay_out(folder, tmp_path, blocks):
    (folder / "06.png").write_bytes(b"no picture")
    for _ in range(2):
        values, kept, _ = embedded(folder, tmp_path)
        assert kept.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
        assert len(values) == 9


def test_a_damaged_block_is_made_anew(folder, tmp_path, blocks):
    first = embedded(folder, tmp_path)[0]
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    again, _, asked = embedded(folder, tmp_path)
    assert asked == 10
    assert np.array_equal(first, again)
