import base64
import io

import numpy as np
import pytest
from PIL import Image

from fullrank.report import pictures


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


@pytest.mark.parametrize("shape", [(8, 8, 3), (64, 40, 3)])
def test_small_pictures_are_kept_exactly(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(pictures.shown(image)), image)


def test_large_pictures_are_scaled_down():
    image = np.full((300, 600, 3), (200, 30, 90), np.uint8)
    found = decoded(pictures.shown(image))
    assert found.shape == (72, 144, 3)
    assert abs(found.astype(int) - (200, 30, 90)).max() <= 4


def test_sprite_holds_every_thumbnail_in_its_place():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (11, 1, 1, 3))
    sheet = pictures.sprite(np.broadcast_to(colours, (11, 24, 16, 3)).astype(np.uint8))
    assert (sheet.columns, sheet.width, sheet.height) == (4, 16, 24)
    found = decoded(sheet.picture).astype(int)
    assert found.shape == (3 * 24, 4 * 16, 3)
    for index, colour in enumerate(colours[:, 0, 0]):
        row, column = divmod(index, 4)
        tile = found[24 * row + 4 : 24 * row + 20, 16 * column + 4 : 16 * column + 12]
        assert abs(tile - colour).max() <= 6, index


def test_large_thumbnails_are_scaled_down():
    sheet = pictures.sprite(np.zeros((2, 100, 100, 3), np.uint8))
    assert (sheet.width, sheet.height) == (32, 32)
