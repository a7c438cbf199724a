"""What a run's warnings and verdicts may speak of, and how its Z is judged."""

import pytest
import torch

from fullrank import arguments
from fullrank.methods import DataFacts
from fullrank.runs.build import build_method
from fullrank.runs.diagnose import as_the_loss_sees, judge
from fullrank.runs.hints import hints_of
from fullrank.runs.settings import resolve


def settings_of(*options):
    settings = resolve(arguments.parse("train", list(options), with_json=False))
    settings.warmup_epochs = settings.warmup_epochs or 0.0
    return settings


def test_the_pace_and_the_terms_that_every_method_can_have():
    hints = hints_of(settings_of("--method", "byol", "--regularize.variance", "5", "--learning_rate", "0.25"))
    assert hints["learning_rate"] == 0.25
    assert hints["levers"] == {
        "variance": {"regularize.variance": (5.0, 25)},
        "covariance": {"regularize.covariance": (0.0, 1)},
    }
    assert hints["off"] == {}


def test_own_weights_come_first():
    levers = hints_of(settings_of("--method", "vicreg", "--variance", "2"))["levers"]
    assert list(levers["variance"].items()) == [("variance", (2.0, 25.0)), ("regularize.variance", (0.0, 25))]
    levers = hints_of(settings_of("--method", "barlowtwins"))["levers"]
    assert list(levers["covariance"]) == ["redundancy", "regularize.covariance"]


@pytest.mark.parametrize(
    ("options", "off"),
    [
        (["--method", "simsiam", "--stop_gradient", "false"], {"stop_gradient": True}),
        (["--method", "simsiam", "--predictor", ""], {"predictor": "128-512"}),  # as wide as the recipe's projector
        (["--method", "simsiam", "--predictor", "none", "--recipe", "default"], {"predictor": "512-2048"}),
        (
            ["--method", "byol", "--momentum", "0", "--stop_gradient", "false"],
            {"momentum": 0.98, "stop_gradient": True},  # the recipe's
        ),
        (["--method", "vicreg", "--batch_norm", "false"], {"batch_norm": True}),
        (["--method", "simsiam", "--predictor", "64-512", "--momentum", "0.9"], {}),
    ],
)
def test_tricks_that_are_published_and_left_out(options, off):
    assert hints_of(settings_of(*options))["off"] == off


def method_and_settings(*options):
    settings = settings_of("--backbone", "test_resnet", *options)
    method = build_method(settings, DataFacts(image_size=32))[0]
    for name, count in method.named_buffers():
        if name.endswith("num_batches_tracked"):
            count.fill_(100)
    return method, settings


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_z_of_a_cosine_loss_is_judged_by_its_directions(name):
    method, settings = method_and_settings("--method", name)
    torch.manual_seed(0)
    shape, lengths = torch.randn(600, 32), torch.logspace(-3, 3, 600)[:, None]
    embeddings = {"Y": shape, "Z": lengths * (1 + 0.02 * shape), "untrained_Z": lengths * shape}
    seen = as_the_loss_sees(embeddings, method)
    assert seen["Y"] is shape
    torch.testing.assert_close(seen["Z"].norm(dim=1), torch.ones(600))
    torch.testing.assert_close(seen["untrained_Z"], torch.nn.functional.normalize(shape, dim=1))
    del seen["untrained_Z"]
    verdicts = judge(seen, method, settings)
    assert verdicts["Y"].verdict == "healthy"
    assert verdicts["Z"].verdict == "complete collapse"
    assert "--regularize.variance 25" in verdicts["Z"].remedy
    assert any("at length 1" in remark for remark in verdicts["Z"].remarks)
    healthy = judge(as_the_loss_sees({"Z": lengths * shape}, method), method, settings)["Z"]
    assert healthy.verdict == "healthy"


def test_a_scale_that_vicreg_does_not_have_is_not_asked_of_it():
    method, settings = method_and_settings("--method", "vicreg", "--expander", "16-32")
    torch.manual_seed(0)
    small = 0.01 * torch.randn(600, 32)
    assert judge({"Z": small}, method, settings)["Z"].verdict == "complete collapse"
    method, settings = method_and_settings("--method", "vicreg", "--expander", "16-32", "--normalize_embedding", "l2")
    unit = torch.nn.functional.normalize(small, dim=1)
    assert judge({"Z": unit}, method, settings)["Z"].verdict == "healthy"
