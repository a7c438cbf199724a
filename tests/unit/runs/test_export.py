"""Every export is opened again by the library that it is for, and gives what the run's backbone gives."""

import json
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision

import fullrank
from fullrank.errors import InputError
from fullrank.runs.export import detectron2_names, export_run


def trained(folder, backbone, size=64, **options):
    run = fullrank.train(
        data=f"shapes:N=64,size={size}",
        method="vicreg",
        backbone=backbone,
        expander="16-16",
        batch_size=16,
        steps=4,
        output=str(folder / "run"),
        report=False,
        logger="none",
        **options,
    )
    return run, torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A ResNet with the stem that libraries build, and what it gives."""
    run, images = trained(tmp_path_factory.mktemp("published"), "resnet18", stem_stride=4)
    with torch.no_grad():
        return run, images, run.backbone(images)


@torch.no_grad()
def test_timm(published, tmp_path):
    run, images, wanted = published
    place = export_run(run, "timm", tmp_path / "out")
    config = json.loads((place / "config.json").read_text())
    arguments = config["model_args"] | {"num_classes": 0}
    backbone = timm.create_model(config["architecture"], checkpoint_path=str(place / "model.safetensors"), **arguments)
    torch.testing.assert_close(backbone.eval()(images), wanted)


@torch.no_grad()
def test_torchvision(published, tmp_path):
    run, images, wanted = published
    place = export_run(run, "torchvision", tmp_path / "out")
    backbone = torchvision.models.resnet18()
    backbone.fc = torch.nn.Identity()
    backbone.load_state_dict(torch.load(place / "resnet18.pth", weights_only=True))
    torch.testing.assert_close(backbone.eval()(images), wanted)


@torch.no_grad()
def test_huggingface(published, tmp_path):
    transformers = pytest.importorskip("transformers")
    run, images, wanted = published
    place = export_run(run, "huggingface", tmp_path / "out")
    backbone = transformers.AutoModel.from_pretrained(place).eval()
    torch.testing.assert_close(backbone(pixel_values=images).pooler_output.flatten(1), wanted)


@pytest.mark.parametrize("number", [1, 5])
def test_onnx(published, number, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run, images, wanted = published
    place = export_run(run, "onnx", tmp_path / "out")
    session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
    given = images.repeat(2, 1, 1, 1)[:number].numpy()
    (found,) = session.run(None, {"images": given})
    np.testing.assert_allclose(found, wanted.repeat(2, 1)[:number].numpy(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript(published, tmp_path):
    run, images, wanted = published
    place = export_run(run, "torchscript", tmp_path / "out")
    torch.testing.assert_close(torch.jit.load(place / "model.pt")(images), wanted)


def test_detectron2_names(published, tmp_path):
    """The names that detectron2's build_resnet_backbone has, by its documented rules: stem, res2 ... res5, shortcut."""
    run, *_ = published
    place = export_run(run, "detectron2", tmp_path / "out")
    with (place / "resnet18.pkl").open("rb") as file:
        content = pickle.load(file)
    assert content["matching_heuristics"] is True
    names = content["model"]
    assert {"stem.conv1.weight", "stem.conv1.norm.running_var", "res2.0.conv1.weight", "res2.0.conv1.norm.bias"} <= set(
        names
    )
    assert {"res3.0.shortcut.weight", "res3.0.shortcut.norm.weight", "res5.1.conv2.norm.running_mean"} <= set(names)
    state = run.backbone.state_dict()
    np.testing.assert_array_equal(names["res4.1.conv2.weight"], state["layer3.1.conv2.weight"].numpy())
    assert len(names) == sum("tracked" not in name for name in state)
    assert detectron2_names({"bn1.num_batches_tracked": torch.ones(1)}) == {}


def test_small_images_and_transformers(tmp_path):
    run, images = trained(tmp_path, "test_vit", size=32)
    with torch.no_grad():
        wanted = run.backbone(images)
    place = export_run(run, "timm", None)
    assert place == run.folder / "export/timm"
    config = json.loads((place / "config.json").read_text())
    backbone = timm.create_model(
        "test_vit", checkpoint_path=str(place / "model.safetensors"), **config["model_args"], num_classes=0
    )
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(images), wanted)
    for to in ("torchvision", "detectron2"):
        with pytest.raises(InputError):
            export_run(run, to, tmp_path / to)
        assert not (tmp_path / to).exists()
    with pytest.raises(InputError, match="is there already"):
        export_run(run, "timm", None)


def test_the_card_says_what_it_is(published, tmp_path):
    run, *_ = published
    text = (export_run(run, "torchscript", tmp_path / "out") / "README.md").read_text()
    for words in (
        "resnet18, pre-trained by vicreg",
        "64 pictures",
        "Bardes",
        "4 steps of 16 pictures",
        "| Y | ",
        "| Z | ",
    ):
        assert words in text, words
    assert "larger stride" not in text
    small, _ = trained(tmp_path, "resnet10t", size=32)
    assert "larger stride" in (export_run(small, "timm", tmp_path / "small") / "README.md").read_text()
