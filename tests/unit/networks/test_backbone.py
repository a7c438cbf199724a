"""Backbones: stems fitted to small images, weights that timm opens."""

import pytest
import safetensors.torch
import timm
import torch

from fullrank.errors import InputError
from fullrank.networks.backbone import (
    create_backbone,
    creation_arguments,
    fit_stem,
    has_published_stem,
    last_reduction,
    load_timm_state,
    timm_state,
)


def last_map(model, size):
    with torch.no_grad():
        return model.eval().forward_features(torch.zeros(1, 3, size, size)).shape[-1]


@pytest.mark.parametrize(
    ("name", "size", "side", "stride"),
    [
        ("resnet18", 32, 4, 1),
        ("resnet18", 48, 6, 1),
        ("resnet18", 64, 4, 2),
        ("resnet18", 128, 4, 4),
        ("test_resnet", 32, 4, 1),
        ("efficientnet_b0", 64, 4, 1),
    ],
)
def test_last_map_keeps_sixteen_cells(name, size, side, stride):
    model, stem = create_backbone(name, image_size=size)
    assert last_map(model, size) == side
    assert stem.stride == stride


def test_a_stride_can_be_chosen():
    model, stem = create_backbone("test_resnet", image_size=32, stem_stride=2)
    assert last_map(model, 32) == 2
    assert stem.stride == 2
    with pytest.raises(InputError, match="takes 1, 2 or 4"):
        create_backbone("test_resnet", image_size=32, stem_stride=3)
    with pytest.raises(InputError, match="leave it out"):
        create_backbone("vit_tiny_patch16_224", image_size=32, stem_stride=1)


def test_large_images_keep_the_published_network():
    model, _ = create_backbone("resnet18", image_size=224)
    plain = timm.create_model("resnet18", num_classes=0)
    assert [str(a) for a in model.modules()] == [str(b) for b in plain.modules()]


def test_patch_stems_are_left_alone():
    model = timm.create_model("convnext_atto", num_classes=0)
    assert "left as it is" in fit_stem(model, 32).reason
    assert model.stem[0].stride == (4, 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("name", "channels", "size"), [("resnet18", 3, 32), ("resnet10t", 13, 48), ("vit_tiny_patch16_224", 1, 64)]
)
def test_timm_opens_the_weights(tmp_path, name, channels, size, layout):
    model, _ = create_backbone(name, channels=channels, image_size=size)
    model.to(memory_format=layout)
    path = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(timm_state(model, name, channels, size), path)
    opened = timm.create_model(name, checkpoint_path=path, **creation_arguments(name, channels, size))
    fit_stem(opened, size)  # the weights fill it; only strides differ from the standard stem
    images = torch.randn(2, channels, size, size)
    with torch.no_grad():
        if name == "resnet18":  # a 3 x 3 kernel inside a 7 x 7 one computes the same
            opened = timm.create_model(name, checkpoint_path=path, **creation_arguments(name, channels, size))
            opened.conv1.stride, opened.maxpool = (1, 1), torch.nn.Identity()
        torch.testing.assert_close(opened.eval()(images), model.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "stride"),
    [(name, stride) for name in ("resnet18", "test_resnet", "resnet10t") for stride in (1, 2, 4)]
    + [("test_vit", None), ("test_convnext", None)],
)
def test_it_is_known_whether_timm_builds_the_same_network(name, stride, tmp_path):
    torch.manual_seed(0)
    model, _ = create_backbone(name, image_size=64, stem_stride=stride)
    path = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(timm_state(model, name, 3, 64), path)
    opened = timm.create_model(name, checkpoint_path=path, **creation_arguments(name, 3, 64))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model.eval()(images), opened.eval()(images)
    assert has_published_stem(model, name, 3, 64) == torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_weights_come_back(tmp_path):
    model, _ = create_backbone("resnet18", image_size=32)
    other, _ = create_backbone("resnet18", image_size=32)
    load_timm_state(other, timm_state(model, "resnet18", 3, 32))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)


def test_wrong_weights_are_an_error():
    model, _ = create_backbone("resnet18", image_size=32)
    with pytest.raises(InputError, match="do not fit this backbone"):
        load_timm_state(model, {"conv1.weight": torch.zeros(64, 3, 7, 7)})


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(InputError, match="unknown backbone 'resnet81': did you mean 'resnet"):
        create_backbone("resnet81")


def test_reduction_is_what_the_network_does():
    model = timm.create_model("resnet18", num_classes=0)
    assert last_map(model, 224) == 224 // last_reduction(model)
