"""Real archives, read as they are."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fullrank.data import open_source
from fullrank.data.check import check_source
from fullrank.data.loading import choose_placement, load_in_memory
from fullrank.data.statistics import measure_pixels


def test_cifar10_train_in_memory(real_data):
    source = open_source(real_data("cifar10.tar.xz"), "train")
    assert len(source) == 50_000
    assert np.bincount(source.labels).tolist() == [5_000] * 10
    pixels = measure_pixels(source)
    assert choose_placement(source, pixels, 32)[0] == "memory"
    assert pixels.normalisation.startswith("ImageNet's; measured")
    check = check_source(source, sample=2_000, batch_size=256)
    assert check.ok
    assert not check.warnings
    some = np.random.default_rng(0).choice(50_000, 200, replace=False)
    for index in some:
        with source._holder.open(source.names[index]) as file:
            reference = np.asarray(Image.open(io.BytesIO(file.read())))
        np.testing.assert_array_equal(source.read(int(index)), reference)


def test_every_file_of_the_deep_archive_keeps_its_values(real_data):
    path = real_data("real_16bit_multichannel.zip")
    source = open_source(path)
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    for entry in manifest:
        indices = [i for i, name in enumerate(source.names) if name.partition("#")[0] == entry["file"]]
        pictures = [source.read(i) for i in indices]
        values = np.concatenate([p.ravel() for p in pictures]).astype(np.float64)
        assert {str(p.dtype) for p in pictures} == {entry["dtype"]}
        assert values.size == np.prod(entry["shape"])
        assert (values.min(), values.max()) == (entry["min"], entry["max"])
        assert values.mean() == pytest.approx(entry["mean"], abs=0.006)
        assert values.std() == pytest.approx(entry["std"], abs=0.006)
    shapes = {name.partition("/")[2]: source.read(i).shape for i, name in enumerate(source.names)}
    assert shapes["hela-cells.tif"] == (512, 672, 3)
    assert shapes["IXMtest_A02_s9.tif"] == (395, 695, 3)
    assert shapes["membrane_2d_timelapse.tif#4"] == (256, 256, 1)
    assert shapes["sentinel2_13band_scenes.npy#0"] == (101, 100, 13)


def test_the_deep_archive_says_how_to_go_on(real_data):
    path = real_data("real_16bit_multichannel.zip")
    (problem,) = check_source(open_source(path)).problems
    assert "such as --include '*.npy'" in problem
    scenes = open_source(path, include="*.npy")
    images, _ = load_in_memory(scenes, measure_pixels(scenes), 64)
    assert images.shape == (5, 13, 101, 100)
    assert (images.float().std(dim=(0, 2, 3)) > 0.1).all()  # the contrast of every band is kept
    check = check_source(open_source(path, include="*.tif"))
    assert check.ok
    assert "files/17P1_POS0013_D_1UL.tif" in check.faint  # 8-bit values beside 16-bit ones
