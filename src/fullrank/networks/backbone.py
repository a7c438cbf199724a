"""Any timm backbone, with its stem fitted to small images and its weights written so that timm reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fullrank.errors import InputError, unknown

# A network that ends in a 1x1 map has nothing left to pool: keep at least this many cells a side.
SMALLEST_LAST_MAP = 4
# Below this size (pixels a side) 16 px patches give transformers too few tokens.
SMALLEST_STANDARD_PATCH_INPUT = 112


@dataclass(frozen=True)
class Stem:
    """What was changed at the entrance of a network so that small images keep a useful last map."""

    stride: int  # total down-sampling of the stem that is left
    reason: str


def create_backbone(
    name: str,
    *,
    channels: int = 3,
    image_size: int = 224,
    stem_stride: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Stem]:
    """A timm model without classifier: images (n, C, H, W) -> representations (n, `num_features`).

    The stem of convolutional networks is fitted to `image_size` (pixels a side), see `fit_stem`, or brought to
    `stem_stride` (1, 2 or 4). `options` are further arguments of `timm.create_model`.
    Raises `InputError` for an unknown name (with the nearest one), or a size or stride the network cannot take.
    """
    if not timm.is_model(name):
        raise unknown("backbone", name, timm.list_models())
    arguments = creation_arguments(name, channels, image_size) | dict(options or {})
    try:
        model = timm.create_model(name, **arguments)
    except TypeError as error:  # timm hands its options on to the network's class
        raise InputError(f"backbone '{name}' cannot be built with {', '.join(arguments)}: {error}") from error
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(f"backbone '{name}' cannot take {channels} x {image_size} px images: {error}") from error
    return model, fit_stem(model, image_size, stem_stride)


def feature_width(backbone: nn.Module) -> int:
    """The width of the representation that a timm model gives."""
    return int(backbone.num_features)  # type: ignore[arg-type]


def refuse_fixed_size(backbone: nn.Module, method: str) -> None:
    """Raises `InputError` for a network that takes images of one size only, where a method has several."""
    if getattr(getattr(backbone, "patch_embed", None), "strict_img_size", False):
        kind = type(backbone).__name__
        raise InputError(
            f"{method} sends images of several sizes through its backbone, and {kind} takes one size: "
            "give a convolutional one, such as --backbone resnet50"
        )


def creation_arguments(name: str, channels: int, image_size: int) -> dict[str, Any]:
    """The keyword arguments with which timm builds the same network again."""
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        arguments["img_size"] = image_size
        if image_size < SMALLEST_STANDARD_PATCH_INPUT:
            arguments["patch_size"] = max(2, image_size // 8)  # an 8 x 8 grid of tokens
    return arguments


def fit_stem(model: nn.Module, image_size: int, stride: int | None = None) -> Stem:
    """Lower the stem's stride to `stride`, or until the last feature map has at least 4 x 4 cells.

    First the max-pool goes, then the first convolution moves by single pixels; a 7 x 7 first convolution
    becomes the 3 x 3 one that the field uses at 32 px. Patch stems (transformers, ConvNeXt) stay as they are.
    """
    convolution = first_convolution(model)
    if convolution is None or convolution.stride != (2, 2):
        if stride is not None:
            raise InputError(f"stem_stride {stride}: this network has no stem of stride 2 or 4 to change; leave it out")
        return Stem(1, "the stem is left as it is")
    published = 4 if has_pool(model) else 2
    if stride not in (None, 1, 2, published):
        raise InputError(f"stem_stride {stride}: this network takes 1, 2 or {published}")
    wanted = stride or fitting_stride(published, image_size, last_reduction(model))
    if wanted < published and has_pool(model):
        model.maxpool = nn.Identity()
    if wanted == 1:
        narrow(model, convolution)
    if wanted == published:
        return Stem(wanted, f"published stem of stride {wanted}")
    return Stem(wanted, f"stem stride lowered from {published} to {wanted} for small images")


def fitting_stride(published: int, image_size: int, reduction: int) -> int:
    """The largest stride of the stem that leaves enough cells of the last map; `reduction` is the whole network's."""
    stride = published
    while stride > 1 and image_size * published // (reduction * stride) < SMALLEST_LAST_MAP:
        stride //= 2
    return stride


def last_reduction(model: nn.Module) -> int:
    """How many pixels a side become one cell of the last feature map."""
    info = getattr(model, "feature_info", None)
    return int(info[-1]["reduction"]) if info else 32


def has_pool(model: nn.Module) -> bool:
    """Whether the stem ends in a max-pool that halves the map (the ResNet family)."""
    return isinstance(getattr(model, "maxpool", None), nn.MaxPool2d | nn.Sequential)


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """The convolution that sees the image, or None for patch embeddings."""
    if hasattr(model, "patch_embed"):
        return None
    return next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)


def narrow(model: nn.Module, convolution: nn.Conv2d) -> None:
    """Move the first convolution by single pixels; make a 7 x 7 kernel a fresh 3 x 3 one."""
    convolution.stride = (1, 1)
    if convolution.kernel_size == (7, 7):
        convolution.weight = nn.Parameter(convolution.weight.detach().new_empty((*convolution.weight.shape[:2], 3, 3)))
        convolution.kernel_size, convolution.padding = (3, 3), (1, 1)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def timm_state(
    model: nn.Module, name: str, channels: int, image_size: int, options: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The weights in the shapes that `timm.create_model(name, num_classes=0)` expects.

    A 3 x 3 first convolution is written as the 7 x 7 one with a border of zeros, which computes the same.
    """
    expected = _published(name, channels, image_size, options).state_dict()
    state = {}
    for key, value in model.state_dict().items():
        border = (expected[key].shape[-1] - value.shape[-1]) // 2 if key in expected and value.ndim == 4 else 0
        state[key] = (nn.functional.pad(value, [border] * 4) if border > 0 else value).contiguous()
    return state


def has_published_stem(
    model: nn.Module, name: str, channels: int, image_size: int, options: Mapping[str, Any] | None = None
) -> bool:
    """Whether the network that timm builds computes the same: its stem was not lowered for small images."""
    published = _published(name, channels, image_size, options)
    ours, theirs = first_convolution(model), first_convolution(published)
    if ours is None or theirs is None:
        return True
    same = (ours.stride, ours.kernel_size) == (theirs.stride, theirs.kernel_size)
    return same and has_pool(model) == has_pool(published)


def _published(name: str, channels: int, image_size: int, options: Mapping[str, Any] | None) -> nn.Module:
    """The network that timm builds, without its weights."""
    with torch.device("meta"):
        return timm.create_model(name, **creation_arguments(name, channels, image_size) | dict(options or {}))


def load_timm_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `timm_state` wrote. Raises `InputError` where the weights are not of this network."""
    own = model.state_dict()
    fitted = {}
    for key, value in state.items():
        border = (value.shape[-1] - own[key].shape[-1]) // 2 if key in own and value.ndim == 4 else 0
        fitted[key] = value[..., border:-border, border:-border] if border > 0 else value
    try:
        model.load_state_dict(fitted)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"the weights do not fit this backbone: {first}") from error
