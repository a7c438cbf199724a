"""What a run's warnings and verdicts may speak of, and how its Z is judged."""

import pytest
import torch

from fullrank import arguments
from fullrank.methods import DataFacts
from fullrank.runs.build import build_method
from fullrank.runs.diagnose import SILENT_PREDICTOR, as_the_loss_sees, judge, predicted_share
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


PREDICTOR = ("--expander", "16-32", "--predictor", "32")  # one linear layer


def test_what_a_predictor_says_of_pictures_as_a_share_of_z():
    torch.manual_seed(0)
    z = 3 + torch.randn(600, 32) * torch.linspace(0.1, 2, 32)
    method, _ = method_and_settings("--method", "vicreg", *PREDICTOR)
    layer = method.network.predictor[-1]
    with torch.no_grad():
        layer.weight.copy_(0.5 * torch.eye(32))
        layer.bias.fill_(7.0)
    assert predicted_share(method, z) == pytest.approx(0.25, rel=1e-5)  # its variance, whatever its mean
    with torch.no_grad():
        layer.weight.zero_()
    assert predicted_share(method, z) == 0
    assert predicted_share(method, torch.ones(600, 32)) is None  # nothing to predict
    early, _ = method_and_settings("--method", "vicreg", *PREDICTOR)
    for name, count in early.named_buffers():
        if name.endswith("num_batches_tracked"):
            count.fill_(3)
    assert predicted_share(early, z) is None  # Z of evaluation mode is not yet what it is in training
    alone, _ = method_and_settings("--method", "vicreg", "--expander", "16-32")
    assert predicted_share(alone, z) is None


def test_what_a_predictor_says_of_directions_where_the_loss_sees_those_alone():
    method, _ = method_and_settings("--method", "simsiam", "--projector", "16-32", "--predictor", "32")
    layer = method.network.predictor[-1]
    with torch.no_grad():
        layer.weight.copy_(0.5 * torch.eye(32))
        layer.bias.zero_()
    assert predicted_share(method, torch.randn(600, 32)) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        (("--batch_norm", "false"), ("batch norm on with --batch_norm true, or leave", "--predictor none"), "longer"),
        ((), ("Leave the predictor out with --predictor none",), "--batch_norm"),
        (("--batch_norm", "false", "--variance", "0"), ("Turn batch norm on",), "--predictor none"),
        (("--variance", "0"), ("Train longer",), "--"),
    ],
)
def test_a_silent_predictor_is_told_and_what_helps(options, said, unsaid):
    method, settings = method_and_settings("--method", "vicreg", *PREDICTOR, *options)
    torch.manual_seed(0)
    verdict = judge({"Z": torch.randn(600, 32)}, method, settings, predicted=0.0076)["Z"]
    assert verdict.verdict == "healthy"
    assert f"{SILENT_PREDICTOR}: its output varies 0.76 % as much as Z" in verdict.remarks[0]
    for words in said:
        assert words in verdict.remedy
    assert unsaid not in verdict.remedy


def test_a_predictor_that_works_or_has_nothing_to_predict_is_not_spoken_of():
    method, settings = method_and_settings("--method", "vicreg", *PREDICTOR)
    torch.manual_seed(0)
    works = judge({"Z": torch.randn(600, 32)}, method, settings, predicted=0.27)["Z"]
    assert (works.remedy, works.remarks) == ("Nothing to change.", [])
    assert works.measures["predicted_share"] == 0.27
    point = judge({"Z": 1e-4 * torch.randn(600, 32)}, method, settings, predicted=0.001)["Z"]
    assert point.verdict == "complete collapse"
    assert not any(SILENT_PREDICTOR in remark for remark in point.remarks)
    assert "predicted_share" not in point.measures
    few = judge({"Z": torch.randn(600, 2) @ torch.randn(2, 32)}, method, settings, predicted=0.001)["Z"]
    assert few.verdict == "dimensional collapse"
    assert "covariance" in few.remedy  # what that asks for stays
    assert "Leave the predictor out" in few.remedy
