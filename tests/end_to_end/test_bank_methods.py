"""Methods with a bank, a puzzle or two encoders from pictures to a backbone that is used again."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import fullrank
from fullrank.data.streams import Encoded, Stream
from fullrank.errors import InputError

SMALL = {"backbone": "test_resnet", "projector": "16", "negatives": 20, "batch_size": 16, "steps": 3, "logger": "none"}


def test_two_encoders_are_kept_as_one_backbone(tmp_path):
    run = fullrank.train(data="shapes:N=96,size=32", method="cmc", output=str(tmp_path / "run"), **SMALL)
    backbone = run.backbone
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = backbone(images)
        torch.testing.assert_close(features, run.method.backbone(images))
    assert features.shape == (2, backbone.num_features)
    vectors = np.load(run.embed(out=str(tmp_path / "vectors.npz")))["vectors"]
    assert vectors.shape == (96, backbone.num_features)
    assert 0 <= run.evaluate()["top1"] <= 100
    assert set(run.diagnose()) == {"Y", "Z"}
    assert ".backbone" in (run.folder / "report.html").read_text()
    assert "create_model" not in (run.folder / "report.html").read_text()


def test_a_puzzle_from_files_of_many_sizes(tmp_path):
    chance = np.random.default_rng(0)
    for number in range(24):
        size = (32 + number, 40, 3)
        Image.fromarray(chance.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    run = fullrank.train(
        data=str(tmp_path), method="pirl", image_size=32, workers=1, output=str(tmp_path / "run"), **SMALL
    )
    assert run.summary["finished"]
    with np.load(run.folder / "diagnostics.npz") as arrays:
        pictures, images, sides, *_ = arrays["views"].shape
    assert (pictures, images) == (6, 3)  # the picture itself, its view, its puzzle
    assert sides == 32
    assert {"puzzle", "image"} <= set((run.folder / "metrics.csv").read_text().splitlines()[0].split(","))


def test_grey_pictures_have_no_colours_to_split(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (32, 32, 32), dtype=np.uint8)
    with pytest.raises(InputError, match="cmc splits the colours of RGB images, and these have 1 channel"):
        fullrank.train(data=images, method="cmc", output=str(tmp_path / "run"), **SMALL)
    assert not (tmp_path / "run").exists()


class Noise(Stream):
    """Pictures that nobody counts."""

    def encoded(self):
        chance = np.random.default_rng(0)
        for number in range(32):
            picture = io.BytesIO()
            Image.fromarray(chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(picture, "png")
            yield Encoded(str(number), picture.getvalue(), None)


@pytest.mark.parametrize("method", ["pirl", "cmc"])
def test_a_stream_cannot_be_remembered(tmp_path, method):
    with pytest.raises(InputError, match=f"{method} remembers every sample, and noise is a stream"):
        fullrank.train(data=Noise("noise", []), method=method, output=str(tmp_path / "run"), **SMALL)
    assert not (tmp_path / "run").exists()
