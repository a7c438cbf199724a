"""Features of a stage against the same computed by hand with timm."""

import pytest
import timm
import torch

from fullrank.errors import InputError
from fullrank.evaluation.taps import Tap

IMAGES = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0, img_size=96).eval()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=0).eval()


@torch.no_grad()
def test_the_output_itself(resnet):
    assert torch.equal(Tap(resnet)(IMAGES), resnet(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize(("pooling", "pool"), [("auto", torch.mean), ("mean", torch.mean), ("max", torch.amax)])
def test_maps_are_pooled(resnet, pooling, pool):
    (wanted,) = resnet.forward_intermediates(IMAGES, indices=[-2], intermediates_only=True)
    torch.testing.assert_close(Tap(resnet, "layer3", pooling)(IMAGES), pool(wanted, dim=(2, 3)))


@torch.no_grad()
def test_tokens_are_pooled(vit):
    wanted, prefix = vit.forward_intermediates(
        IMAGES, indices=[0], intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
    )[0]
    first, mean = prefix[:, 0], wanted.mean(1)
    for pooling, each in {"cls": first, "auto": first, "mean": mean, "cls+mean": torch.cat([first, mean], 1)}.items():
        torch.testing.assert_close(Tap(vit, "blocks.0", pooling)(IMAGES), each)
    assert Tap(vit, "blocks.0", "tokens")(IMAGES).shape == (3, (wanted.shape[1] + 1) * wanted.shape[2])


@torch.no_grad()
def test_the_last_blocks_are_normalised_class_tokens(vit):
    pairs = vit.forward_intermediates(
        IMAGES, indices=2, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True, norm=True
    )
    wanted = torch.cat([prefix[:, 0] for _, prefix in pairs], dim=1)
    torch.testing.assert_close(Tap(vit, "last2")(IMAGES), wanted)


def test_what_a_network_lacks(vit, resnet):
    with pytest.raises(InputError, match=r"unknown layer 'layer33'.*layer3"):
        Tap(resnet, "layer33")
    with pytest.raises(InputError, match="has no 4 transformer blocks"):
        Tap(resnet, "last4")
    with pytest.raises(InputError, match="has no class token"):
        Tap(resnet, "layer3", "cls")
    with pytest.raises(InputError, match="pooling mean needs --layer"):
        Tap(vit, None, "mean")
