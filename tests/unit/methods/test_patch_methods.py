"""CPC v2 and OBoW: what they ask of their views and of the feature maps."""

import pytest
import timm
import torch

from fullrank.errors import InputError
from fullrank.methods import Batch, DataFacts, get
from fullrank.methods.obow import by_size


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ([torch.randn(2, 3, 16, 16)], r"\(2, 3, 16, 16\): give one view with grid"),
        ([torch.randn(2, 36, 3, 6, 6)] * 2, "give one view"),
        ([torch.randn(2, 35, 3, 6, 6)], "give one view"),
        ([torch.randn(2, 25, 3, 6, 6)], "up to 5 rows below, and a grid of 5 has 4.*a grid of 6"),
    ],
)
def test_cpc_needs_one_large_enough_grid(views, words):
    with pytest.raises(InputError, match=words):
        get("cpcv2")(timm.create_model("test_resnet", num_classes=0))(Batch(views, torch.arange(2)))


def test_cpc_predicts_in_one_two_or_four_directions():
    with pytest.raises(InputError, match="directions is 3: give one of 1, 2, 4"):
        get("cpcv2")(timm.create_model("test_resnet", num_classes=0), directions=3)
    torch.manual_seed(0)
    patches = torch.randn(2, 36, 3, 6, 6)
    for directions in (1, 2, 4):
        method = get("cpcv2")(
            timm.create_model("test_resnet", num_classes=0), directions=directions, steps_to_predict=1
        )
        step = method(Batch([patches], torch.arange(2)))
        assert set(step.terms) == {"rows_3"}
        assert step.loss.item() == pytest.approx(directions * torch.tensor(72.0).log().item(), rel=0.1)


def test_obow_needs_maps_with_an_inside():
    backbone = timm.create_model("test_resnet", num_classes=0)
    method = get("obow")(backbone, words=8, facts=DataFacts(image_size=32))
    whole, crop = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 32, 32)
    with pytest.raises(InputError, match="2 x 2 cells"):
        method(Batch([whole, crop], torch.arange(2)))
    method(Batch([torch.randn(2, 3, 96, 96), crop], torch.arange(2)))


def test_obow_starts_with_everything_in_training_and_unchanged():
    backbone = timm.create_model("test_resnet", num_classes=0)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    method = get("obow")(backbone, words=8, facts=DataFacts(image_size=96))
    assert all(module.training for module in method.modules())
    for network in (backbone, method.teacher.copy.backbone):
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_crops_are_told_apart_by_size_and_stand_by_image():
    large = [torch.full((2, 1, 4, 4), float(crop)) for crop in range(2)]
    small = torch.randn(2, 3, 1, 2, 2)
    found = by_size([large[0], small, large[1]])
    assert found[4].flatten(0, 1)[:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    assert torch.equal(found[2], small)
    with pytest.raises(InputError, match="obow got one view"):
        by_size([])
