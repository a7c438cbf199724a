"""What is evaluated: a backbone, what it takes, and which weights these are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from fullrank.errors import InputError, unknown

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
NESTS = ("state_dict", "model", "model_state", "teacher", "target_encoder", "student", "encoder", "backbone", "net")
"""Under which names checkpoints of other libraries hold their weights."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Model:
    """A backbone to be judged.

    Attributes:
        name: what results call it.
        backbone: images (n, C, H, W) -> features (n, width), in evaluation mode.
        architecture: timm's or torchvision's name of it.
        image_size: side of the pictures that it takes, pixels.
        pixels: how they are scaled, as a run keeps it; None for a network of others, which sees pictures of any set.
        mean: of each channel, where `pixels` is None.
        std: of each channel, where `pixels` is None.
        folder: of the run that it is from.
    """

    name: str
    backbone: nn.Module
    architecture: str
    image_size: int
    pixels: Mapping[str, Any] | None = None
    mean: tuple[float, ...] = IMAGENET["mean"]
    std: tuple[float, ...] = IMAGENET["std"]
    folder: Path | None = None

    @property
    def weights(self) -> str:
        """A digest of all weights and buffers."""
        return digest_of(self.backbone)


def digest_of(network: nn.Module) -> str:
    """Of all weights and buffers: equal for equal networks."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def open_library(given: str, *, pretrained: bool, image_size: int | None, seed: int = 0) -> Model:
    """`timm:NAME` or `torchvision:NAME`; random weights are drawn from the seed.

    Raises `InputError` for a name that the library lacks, or for weights that cannot be had.
    """
    library, _, name = given.partition(":")
    build = _timm if library == "timm" else _torchvision
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(given, name, pretrained=pretrained, image_size=image_size)
    except InputError:
        raise
    except Exception as error:  # of the network, the disk or the hub: anything
        raise InputError(
            f"the weights of {given} cannot be had ({' '.join(str(error).split())[:120]}): add --pretrained false to "
            "evaluate random ones, or name a weights file and --backbone"
        ) from error


def _timm(given: str, name: str, *, pretrained: bool, image_size: int | None) -> Model:
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    fixed = image_size and timm.get_pretrained_cfg_value(name, "fixed_input_size")
    size_of_its_own: dict[str, Any] = {"img_size": image_size} if fixed else {}
    backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **size_of_its_own)
    config = timm.data.resolve_model_data_config(backbone)
    size = image_size or int(config["input_size"][-1])
    return Model(given, backbone.eval(), name, size, mean=tuple(config["mean"]), std=tuple(config["std"]))


def _torchvision(given: str, name: str, *, pretrained: bool, image_size: int | None) -> Model:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    backbone = torchvision.models.get_model(name, weights=weights if pretrained else None)
    transform = weights.transforms()
    size = image_size or int(transform.crop_size[0])
    return Model(
        given, without_classifier(backbone).eval(), name, size, mean=tuple(transform.mean), std=tuple(transform.std)
    )


def without_classifier(model: nn.Module) -> nn.Module:
    """A network of torchvision whose last linear layer is left out; `num_features` is what went into it."""
    name, last = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    model.num_features = last.in_features  # type: ignore[assignment]
    return model


def open_weights(path: Path, architecture: str | None, *, image_size: int | None) -> Model:
    """A file of weights of any library, for an architecture of timm or torchvision.

    Weights may lie under a name such as `state_dict` or `teacher`, and their own names may have a prefix such as
    `module.backbone.`. A classifier is left out. Nothing in the file is run.

    Raises `InputError` for a file that cannot be read, and for weights that are not of this architecture.
    """
    if architecture is None:
        raise InputError(
            f"{path.name} does not say which network it is of: add --backbone NAME, of timm or torchvision"
        )
    state = read_state(path)
    if timm.is_model(architecture):
        model = _timm(str(path), architecture, pretrained=False, image_size=image_size)
    else:
        model = _torchvision(
            str(path), architecture.removeprefix("torchvision:"), pretrained=False, image_size=image_size
        )
    load_stripped(model.backbone, state, f"{path.name} and {architecture}")
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names. Raises `InputError` where there are none."""
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        carries_code = "weights_only" in str(error) or "Unsupported" in str(error)
        what = "carries code, which is never run: save its state_dict" if carries_code else "cannot be read"
        raise InputError(f"{path} {what}") from error
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((found[name] for name in NESTS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            raise InputError(f"{path} holds no weights: found {', '.join(map(str, list(found)[:6])) or 'nothing'}")
        found = inner
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds {type(found).__name__} in place of weights by their names")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def load_stripped(model: nn.Module, state: Mapping[str, Tensor], words: str) -> None:
    """Load weights whose names may have a prefix. Raises `InputError` where one is missing or of another shape."""
    own = model.state_dict()
    prefix = _prefix(own, state)
    fitted = {name: state[prefix + name] for name in own if prefix + name in state}
    # Counters of batch norm are missing in old checkpoints, and tell nothing.
    missing = [name for name in own if name not in fitted and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"{words} do not fit: {len(missing)} of {len(own)} weights are missing, such as '{missing[0]}'; the file "
            f"has names such as '{next(iter(state), '')}'"
        )
    other = next((name for name, value in fitted.items() if value.shape != own[name].shape), None)
    if other is not None:
        raise InputError(
            f"{words} do not fit: '{other}' is {tuple(fitted[other].shape)} there, {tuple(own[other].shape)} here"
        )
    model.load_state_dict(fitted, strict=False)


def _prefix(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What stands before the most of our names in theirs."""
    rarest = max(own, key=len, default="")  # long names say most
    found = [name.removesuffix(rarest) for name in state if name == rarest or name.endswith(f".{rarest}")]
    return max(found, key=lambda prefix: sum(prefix + name in state for name in own), default="")
