"""Networks of other libraries and files of weights."""

import pickle

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from fullrank.errors import InputError
from fullrank.evaluation.model import digest_of, open_library, open_weights

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def other(name="test_resnet", **options):
    torch.manual_seed(1)
    return timm.create_model(name, **options).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("vit_b_32", 768), ("squeezenet1_0", None)]
)
def test_torchvision_without_its_classifier(name, width):
    torch.manual_seed(0)
    if width is None:
        with pytest.raises(InputError):
            open_library(f"torchvision:{name}", pretrained=False, image_size=None)
        return
    model = open_library(f"torchvision:{name}", pretrained=False, image_size=None)
    assert model.backbone.num_features == width
    assert model.backbone(torch.zeros(1, 3, 224, 224)).shape == (1, width)
    assert (model.image_size, len(model.mean)) == (224, 3)


def test_timm_says_size_and_normalisation():
    model = open_library("timm:test_vit", pretrained=False, image_size=None)
    config = timm.create_model("test_vit").pretrained_cfg
    assert (model.image_size, model.mean) == (config["input_size"][-1], tuple(config["mean"]))
    assert open_library("timm:test_vit", pretrained=False, image_size=64).image_size == 64


def test_names_that_are_none():
    with pytest.raises(InputError, match=r"unknown timm model 'resnet19'.*resnet18"):
        open_library("timm:resnet19", pretrained=True, image_size=None)
    with pytest.raises(InputError, match=r"unknown torchvision model 'resnet19'"):
        open_library("torchvision:resnet19", pretrained=True, image_size=None)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder_q."])
@pytest.mark.parametrize("nest", [(), ("state_dict",), ("teacher",), ("model", "state_dict")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_any_library(prefix, nest, suffix, tmp_path):
    network = other(num_classes=10)
    state = {prefix + name: value for name, value in network.state_dict().items()} | {"head.weight": torch.zeros(3)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        for name in reversed(nest):
            state = {name: state, "epoch": 3}
        torch.save(state, path)
    model = open_weights(path, "test_resnet", image_size=None)
    torch.testing.assert_close(model.backbone(IMAGES), network.forward_head(network.forward_features(IMAGES), True))


def test_old_checkpoints_lack_counters(tmp_path):
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if "tracked" not in k}
    torch.save(state, tmp_path / "old.pth")
    open_weights(tmp_path / "old.pth", "resnet18", image_size=None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": 1}, "holds no weights: found a"),
        ({"conv1.weight": torch.zeros(2)}, "weights are missing, such as"),
        ({k: v[..., :1] for k, v in other().state_dict().items() if v.ndim}, "is .* there, .* here"),
        (torch.zeros(2), "holds Tensor in place of weights"),
    ],
)
def test_weights_that_do_not_fit(content, words, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=words):
        open_weights(tmp_path / "w.pth", "test_resnet", image_size=None)


def test_code_is_never_run(tmp_path):
    class Bad:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(InputError, match=r"w.pth (carries code|cannot be read)"):
        open_weights(tmp_path / "w.pth", "test_resnet", image_size=None)
    with pytest.raises(InputError, match="add --backbone NAME"):
        open_weights(tmp_path / "w.pth", None, image_size=None)


def test_the_digest_is_of_the_weights():
    first, same = other(), other()
    assert digest_of(first) == digest_of(same)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-6
    assert digest_of(first) != digest_of(same)
