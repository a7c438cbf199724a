"""`fullrank export`: a run's backbone in the form that another library opens, with a card that says what it is."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from fullrank import methods
from fullrank.errors import InputError, unknown
from fullrank.evaluation.repeated import SPREAD
from fullrank.files import write_atomically, write_text
from fullrank.networks.backbone import creation_arguments, timm_state
from fullrank.report import wording
from fullrank.runs.build import backbone_options, build_method, facts_of
from fullrank.runs.folder import Run

OPSET = 18
CLASSIFIERS = ("fc", "classifier", "heads", "head")
# Names of a ResNet's parts in detectron2, as facebookresearch/moco's converter writes them.
TO_DETECTRON2 = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)\.", lambda found: f"res{int(found[1]) + 1}."),
    (r"downsample\.0\.", "shortcut."),
    (r"downsample\.1\.", "shortcut.norm."),
    (r"bn(\d)\.", r"conv\1.norm."),
)


def export_run(run: Run, to: str, output: Path | None) -> Path:
    """What `fullrank.export` does: the folder or file that was written."""
    if to not in FORMATS:
        raise unknown("format", to, FORMATS, listed=True)
    if methods.get(run.settings.method).branch_channels is not None and to not in ("onnx", "torchscript"):
        raise InputError(f"the backbone of {run.settings.method} is made of two networks: take onnx or torchscript")
    place = output or run.folder / "export" / to
    if place.exists() and any(place.iterdir() if place.is_dir() else [place]):
        raise InputError(f"{place} is there already: name another place with --output, or remove it")
    place.mkdir(parents=True)
    try:
        use = FORMATS[to](run, place)
    except BaseException:
        shutil.rmtree(place)  # nothing half-written
        raise
    write_text(place / "README.md", card(run, use))
    return place


def to_timm(run: Run, place: Path) -> str:
    """Weights and configuration as on the hub of timm."""
    _write_timm(run, place)
    name = run.settings.backbone
    options = creation(run)
    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return (
        f"import timm\n\nbackbone = timm.create_model({name!r}, {arguments},\n"
        f'                             checkpoint_path="model.safetensors")'
    )


def to_huggingface(run: Run, place: Path) -> str:
    """The same folder, which transformers opens through its timm wrapper."""
    _write_timm(run, place)
    return (
        "from transformers import AutoModel\n\n"
        'backbone = AutoModel.from_pretrained(".")  # the folder, or where it was uploaded\n'
        "features = backbone(pixel_values=images).pooler_output"
    )


def _write_timm(run: Run, place: Path) -> None:
    state = _timm_state(run)
    write_atomically(
        place / "model.safetensors", lambda file: file.write(safetensors.torch.save(state, {"format": "pt"}))
    )
    pixels = run.input["pixels"]
    config = {
        "architecture": run.settings.backbone,
        "num_classes": 0,
        "num_features": int(run.backbone.num_features),  # type: ignore[arg-type]
        "model_args": {key: value for key, value in creation(run).items() if key != "num_classes"},
        "pretrained_cfg": {
            "input_size": [run.input["channels"], run.input["image_size"], run.input["image_size"]],
            "mean": list(pixels["mean"]),
            "std": list(pixels["std"]),
            "interpolation": "bicubic",
            "num_classes": 0,
            "fixed_input_size": bool(timm.get_pretrained_cfg_value(run.settings.backbone, "fixed_input_size")),
        },
    }
    write_text(place / "config.json", json.dumps(config, indent=1) + "\n")


def to_torchvision(run: Run, place: Path) -> str:
    """A state for the network of the same name in torchvision, which has to have the same parameters."""
    name, state = run.settings.backbone, _timm_state(run)
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(f"torchvision has no {name}: export to timm, onnx or torchscript")
    with torch.device("meta"):
        expected = torchvision.models.get_model(name).state_dict()
    wanted = {
        key: value for key, value in expected.items() if key.split(".")[0] not in ("fc", "classifier", "heads", "head")
    }
    if wanted.keys() != state.keys() or any(wanted[key].shape != state[key].shape for key in wanted):
        raise InputError(f"timm's {name} and torchvision's have other parameters: export to timm, onnx or torchscript")
    write_atomically(place / f"{name}.pth", lambda file: torch.save(state, file))
    head = next(key for key in expected if key not in wanted).split(".")[0]
    return (
        f"import torch, torchvision\n\nbackbone = torchvision.models.{name}()\nbackbone.{head} = torch.nn.Identity()\n"
        f'backbone.load_state_dict(torch.load("{name}.pth", weights_only=True))'
    )


def to_detectron2(run: Run, place: Path) -> str:
    """A pickle of arrays by detectron2's names, for a ResNet."""
    name, state = run.settings.backbone, _timm_state(run)
    if not {"conv1.weight", "layer4.0.conv1.weight"} <= state.keys():
        raise InputError(f"detectron2's names are known of ResNets, and {name} is none: export to timm or onnx")
    content = {"model": detectron2_names(state), "__author__": "fullrank", "matching_heuristics": True}
    write_atomically(place / f"{name}.pkl", lambda file: pickle.dump(content, file))
    return (
        f'# configs/...: MODEL.WEIGHTS: "{name}.pkl", MODEL.RESNETS.STRIDE_IN_1X1: False, INPUT.FORMAT: "RGB",\n'
        f"# MODEL.PIXEL_MEAN: {[round(255 * value, 3) for value in run.input['pixels']['mean']]},\n"
        f"# MODEL.PIXEL_STD: {[round(255 * value, 3) for value in run.input['pixels']['std']]}"
    )


def detectron2_names(state: dict[str, Tensor]) -> dict[str, Any]:
    """The weights of a ResNet as numpy arrays under detectron2's names."""
    renamed = {}
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            for pattern, new in TO_DETECTRON2:
                name = re.sub(pattern, new, name)
            renamed[name] = value.numpy()
    return renamed


def to_onnx(run: Run, place: Path) -> str:
    """A graph that takes normalised pictures of the run's size, any number at once."""
    backbone, example = run.backbone, _example(run)
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise InputError("onnx needs its packages: pip install 'fullrank[onnx]'") from error
    names = {
        "input_names": ["images"],
        "output_names": ["features"],
        "dynamic_axes": {"images": {0: "n"}, "features": {0: "n"}},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(backbone, (example,), place / "model.onnx", opset_version=OPSET, dynamo=False, **names)  # type: ignore[arg-type]
    return (
        'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        '(features,) = session.run(None, {"images": images})  # float32 (n, C, H, W), normalised'
    )


def to_torchscript(run: Run, place: Path) -> str:
    """A traced network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(run.backbone, _example(run))
        torch.jit.save(traced, place / "model.pt")
    return 'import torch\n\nbackbone = torch.jit.load("model.pt")'


def _example(run: Run) -> Tensor:
    size = run.input["image_size"]
    return torch.zeros(2, run.input["channels"], size, size)


def _timm_state(run: Run) -> dict[str, Tensor]:
    name, size, channels = run.settings.backbone, run.input["image_size"], run.input["channels"]
    return timm_state(run.backbone, name, channels, size, backbone_options(run.settings, name))


def creation(run: Run) -> dict[str, Any]:
    """With which arguments timm builds the same network."""
    name, size, channels = run.settings.backbone, run.input["image_size"], run.input["channels"]
    return creation_arguments(name, channels, size) | backbone_options(run.settings, name)


FORMATS: dict[str, Callable[[Run, Path], str]] = {
    "timm": to_timm,
    "torchvision": to_torchvision,
    "huggingface": to_huggingface,
    "detectron2": to_detectron2,
    "onnx": to_onnx,
    "torchscript": to_torchscript,
}


def card(run: Run, use: str) -> str:
    """A model card: how to open it, data, method, verdict, evaluations, and what the numbers were measured with."""
    summary, settings, taken = run.summary, run.settings, run.input
    size, pixels, width = taken["image_size"], taken["pixels"], int(run.backbone.num_features)  # type: ignore[arg-type]
    lines = [
        "---",
        "library_name: timm",
        f"tags: [self-supervised-learning, {settings.method}]",
        "---",
        "",
        f"# {settings.backbone}, pre-trained by {settings.method}",
        "",
        "```python",
        use,
        "```",
        "",
        f"It takes pictures of {taken['channels']} x {size} x {size} with values in [0, 1], normalised by mean "
        f"{_numbers(pixels['mean'])} and standard deviation {_numbers(pixels['std'])}, and gives the representation, "
        f"{width} numbers. There is no classifier.",
        *_stem_note(run),
        "",
        "| | |",
        "|---|---|",
        f"| data | {summary.get('data', settings.data)}, {taken['samples']:,} pictures |",
        f"| method | {settings.method}: {methods.get(settings.method).paper} |",
        f"| training | {summary['steps']:,} steps of {settings.batch_size} pictures by {settings.optimizer} |",
        *(f"| {name} | {each['verdict']}: {each['reason']} |" for name, each in summary.get("verdict", {}).items()),
        *(f"| {each['protocol']} | {_scores(each)} |" for each in summary.get("evaluations", []) if "scores" in each),
        f"| versions | {', '.join(f'{name} {version}' for name, version in summary.get('versions', {}).items())} |",
    ]
    return "\n".join(lines) + "\n"


def _stem_note(run: Run) -> list[str]:
    reason = build_method(run.settings, facts_of(run.input))[1].reason
    if "lowered" not in reason:
        return []
    return [
        f"In training the {reason}. Libraries build the published stem, with a larger stride, and give other features; "
        "the ONNX and TorchScript forms, and `fullrank.load_run(...).backbone`, are the network as it was trained."
    ]


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


def _scores(evaluation: dict[str, Any]) -> str:
    found = evaluation["scores"]
    scores = ", ".join(f"{name} {wording.score(found, name, 2)}" for name in found if not name.endswith(SPREAD))
    variant = f"{evaluation['variant']}: " if evaluation.get("variant") else ""
    return f"{variant}{scores} on {evaluation['test_data']} (n = {evaluation['n_test']:,})"
