"""What pixels are measured to be, and how they are scaled."""

import json

import numpy as np
import pytest
import torch

from fullrank.data import open_source
from fullrank.data.arrays import Arrays
from fullrank.data.statistics import IMAGENET_MEAN, IMAGENET_STD, Pixels, measure_pixels
from fullrank.errors import InputError
from tests.unit.data.picture_files import encoded, noise, npy, write_folder

RNG = np.random.default_rng(0)


def folder_of(tmp_path, images):
    return open_source(write_folder(tmp_path, {f"{i}.npy": npy(image) for i, image in enumerate(images)}))


def test_eight_bit_statistics_are_those_of_all_pixels():
    images = RNG.integers(0, 200, (30, 16, 16, 3), dtype=np.uint8)
    images[..., 1] //= 3
    pixels = measure_pixels(Arrays(images))
    assert (pixels.channels, pixels.depth, pixels.size, pixels.sampled) == (3, "uint8", (16, 16), 30)
    assert pixels.normalisation == "measured"
    np.testing.assert_allclose(pixels.mean, (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(pixels.std, (images / 255).std((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(("offset", "applies"), [(0.0, True), (0.08, True), (0.2, False)])
def test_imagenet_statistics_apply_where_pictures_are_like_it(offset, applies):
    values = RNG.normal(np.array(IMAGENET_MEAN) - offset, IMAGENET_STD, (40, 16, 16, 3))
    images = (values.clip(0, 1) * 255).round().astype(np.uint8)
    pixels = measure_pixels(Arrays(images))
    assert (pixels.mean == IMAGENET_MEAN and pixels.std == IMAGENET_STD) is applies
    assert pixels.normalisation.startswith("ImageNet's") is applies


def test_sixteen_bits_are_scaled_by_robust_limits_of_each_channel():
    images = RNG.integers(1000, 3000, (50, 20, 20, 5), dtype=np.uint16)
    images[..., 2] += 30_000
    images[0, 0, 0] = 65_535  # one hot pixel
    pixels = measure_pixels(Arrays(images))
    flat = images.reshape(-1, 5).astype(float)
    np.testing.assert_allclose(pixels.low, np.percentile(flat, 0.1, axis=0), rtol=1e-6)
    np.testing.assert_allclose(pixels.high, np.percentile(flat, 99.9, axis=0), rtol=1e-6)
    unit = pixels.to_unit(images[0])
    low, high = np.array(pixels.low), np.array(pixels.high)
    np.testing.assert_allclose(unit, np.clip((images[0] - low) / (high - low), 0, 1), atol=1e-6)
    everything = np.clip((flat - low) / (high - low), 0, 1)
    np.testing.assert_allclose(pixels.mean, everything.mean(0), atol=1e-6)
    np.testing.assert_allclose(pixels.std, everything.std(0), atol=1e-6)


def test_sixteen_bit_pictures_do_not_turn_white():
    """8-bit values in a 16-bit container, and an offset of 2^15: dividing by 255 or 65535 would spoil both."""
    for low, high in ((1, 255), (32_993, 36_863)):
        images = RNG.integers(low, high, (10, 16, 16), dtype=np.uint16)
        unit = np.stack([measure_pixels(Arrays(images)).to_unit(i[:, :, None]) for i in images])
        assert abs(unit.mean() - 0.5) < 0.02
        assert abs(unit.std() - 12**-0.5) < 0.02  # uniform values fill the range


def test_floats_in_zero_to_one_stay_and_others_are_scaled():
    images = RNG.random((20, 16, 16, 2)).astype(np.float32)
    pixels = measure_pixels(Arrays(images))
    assert (pixels.low, pixels.high) == ((0.0, 0.0), (1.0, 1.0))
    np.testing.assert_array_equal(pixels.to_unit(images[0]), images[0])
    scaled = measure_pixels(Arrays(images * 1e-4 - 3))
    np.testing.assert_allclose(scaled.to_unit(images[0] * np.float32(1e-4) - 3), images[0], atol=0.01)


def test_missing_values_become_zero_and_do_not_spoil_the_limits():
    images = RNG.normal(100, 5, (10, 12, 12, 1)).astype(np.float32)
    images[0, :3] = np.nan
    images[1, 0] = np.inf
    pixels = measure_pixels(Arrays(images))
    assert np.isfinite([pixels.low, pixels.high, pixels.mean, pixels.std]).all()
    assert (pixels.to_unit(images[0])[:3] == 0).all()
    assert (pixels.to_unit(images[1])[0] == 1).all()
    with pytest.raises(InputError, match="no finite number"):
        measure_pixels(Arrays(np.full((3, 8, 8), np.nan)))


def test_a_constant_set_is_not_divided_by_zero():
    pixels = measure_pixels(Arrays(np.full((4, 8, 8), 700, np.uint16)))
    assert np.isfinite(pixels.to_unit(np.full((8, 8, 1), 700, np.uint16))).all()
    assert pixels.std == (1 / 255,)


def test_grey_among_colour_becomes_colour(tmp_path):
    grey, colour = noise(0, 20, 20, 1), noise(1, 20, 20, 3)
    pixels = measure_pixels(folder_of(tmp_path, [grey[:, :, 0], colour]))
    assert pixels.channels == 3
    np.testing.assert_array_equal(pixels.to_uint8(grey), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(pixels.to_uint8(colour), colour)


def test_colour_in_a_grey_set_becomes_grey():
    pixels = measure_pixels(Arrays(np.stack([noise(i, channels=1)[:, :, 0] for i in range(3)])))
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 200, 200]]], np.uint8)
    np.testing.assert_array_equal(pixels.to_uint8(colour)[0, :, 0], [76, 150, 29, 200])  # ITU-R 601


def test_other_mixtures_of_channels_are_an_error_that_names_both(tmp_path):
    write_folder(tmp_path, {"rgb.png": encoded(noise(0)), "bands.npy": npy(noise(1, 20, 20, 5))})
    message = r"pictures of 3 \('rgb.png'\) and 5 \('bands.npy'\) channels are mixed; .* --include '\*.npy'"
    with pytest.raises(InputError, match=message):
        measure_pixels(open_source(tmp_path))


def test_depths_that_cannot_be_mixed(tmp_path):
    deep, floats = noise(0, 20, 20, dtype=np.uint16), RNG.random((20, 20, 3))
    with pytest.raises(InputError, match=r"float32 \('1.npy'\) and uint16 \('0.npy'\) are mixed"):
        measure_pixels(folder_of(tmp_path, [deep, floats]))


def test_eight_bit_pictures_in_a_deeper_set_are_divided_by_255(tmp_path):
    images = [noise(0, 20, 20), noise(1, 20, 20, dtype=np.uint16) // 16]
    pixels = measure_pixels(folder_of(tmp_path, images))
    assert pixels.depth == "uint16"
    np.testing.assert_allclose(pixels.to_unit(images[0]), images[0] / 255, atol=1e-6)
    np.testing.assert_allclose(pixels.low, np.percentile(images[1].reshape(-1, 3), 0.1, axis=0), rtol=1e-6)


def test_a_picture_of_another_kind_is_refused():
    pixels = measure_pixels(Arrays(np.stack([noise(i) for i in range(3)])))
    with pytest.raises(InputError, match="a uint16 picture in a set of uint8 pictures"):
        pixels.to_unit(noise(0, dtype=np.uint16))
    with pytest.raises(InputError, match="a picture of 5 channels in a set of 3"):
        pixels.to_unit(noise(0, channels=5))


def test_tensors_keep_what_the_depth_needs():
    eight, deep = noise(0), noise(1, dtype=np.uint16)
    small = measure_pixels(Arrays(np.stack([eight] * 2))).to_tensor(eight)
    assert small.dtype == torch.uint8
    np.testing.assert_array_equal(small.permute(1, 2, 0).numpy(), eight)
    grey = noise(2, channels=1)
    grey.flags.writeable = False  # as decoders give pictures
    tensor = measure_pixels(Arrays(np.stack([grey] * 2))).to_tensor(grey)
    assert not np.shares_memory(tensor.numpy(), grey)  # torch warns of memory that it must not write
    np.testing.assert_array_equal(tensor.numpy()[0], grey[..., 0])
    pixels = measure_pixels(Arrays(np.stack([deep] * 2)))
    large = pixels.to_tensor(deep)
    assert large.dtype == torch.float32
    np.testing.assert_allclose(large.permute(1, 2, 0).numpy(), pixels.to_unit(deep))
    np.testing.assert_allclose(pixels.to_uint8(deep) / 255, pixels.to_unit(deep), atol=0.5 / 255 + 1e-6)


def test_remembered_pixels_scale_alike():
    pixels = measure_pixels(Arrays(RNG.integers(0, 5000, (5, 16, 16, 13), dtype=np.uint16)))
    again = Pixels.from_dict(json.loads(json.dumps(pixels.to_dict())))
    assert again == pixels
    picture = RNG.integers(0, 6000, (9, 9, 13), dtype=np.uint16)
    np.testing.assert_array_equal(again.to_unit(picture), pixels.to_unit(picture))


def test_large_sets_are_sampled_and_sizes_noted(tmp_path):
    images = RNG.integers(0, 255, (500, 8, 8), dtype=np.uint8)
    pixels = measure_pixels(Arrays(images), sample=100)
    assert pixels.sampled == 100
    assert pixels == measure_pixels(Arrays(images), sample=100)
    mixed = measure_pixels(folder_of(tmp_path, [noise(0, 20, 20), noise(1, 20, 24)]))
    assert mixed.size is None


def test_nothing_readable(tmp_path):
    source = open_source(write_folder(tmp_path, {"a.png": b"", "b.png": b"x"}))
    with pytest.raises(InputError, match=r"not one of 2 pictures can be read; cannot read 'b.png'"):
        measure_pixels(source)
