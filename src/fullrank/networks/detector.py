"""Faster and Mask R-CNN on a pre-trained backbone, of torchvision's parts, with the norms that the field adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from fullrank.errors import InputError

Kind = Literal["c4", "fpn"]
SIZES = (32, 64, 128, 256, 512)  # of anchors, pixels
RATIOS = (0.5, 1.0, 2.0)
WIDTH = 256  # channels of the pyramid
LARGEST = 4 / 3 * 1000 / 800  # longer side over the shorter one, at the most: 1333 at 800
Norm = Callable[[int], nn.Module]


class Stage(NamedTuple):
    """A stage of a backbone: its module, and channels and reduction (pixels a cell) of its map."""

    module: str
    channels: int
    reduction: int


def stages_of(backbone: Any) -> list[Stage]:
    """Stages as timm tells them, or the layers of torchvision's ResNets; none of other networks."""
    info = getattr(backbone, "feature_info", None)
    if info:
        return [Stage(each["module"], int(each["num_chs"]), int(each["reduction"])) for each in info]
    layers = [(name, getattr(backbone, name, None)) for name in ("layer1", "layer2", "layer3", "layer4")]
    return [
        Stage(name, [each for each in layer.modules() if isinstance(each, nn.Conv2d)][-1].out_channels, 4 << place)
        for place, (name, layer) in enumerate(layers)
        if layer is not None
    ]


class Stages(nn.Module):
    """The feature maps of a backbone, by their numbers, as torchvision's detectors take them.

    Args:
        backbone: a network with stages, of timm or a ResNet of torchvision.
        fewest: reduction of the first stage that is given, in pixels a cell.

    Raises:
        InputError: a network without stages, such as a plain transformer.
    """

    def __init__(self, backbone: nn.Module, fewest: int = 4) -> None:
        super().__init__()
        self.backbone = backbone
        kept = [each for each in stages_of(backbone) if each.reduction >= fewest]
        if len({each.reduction for each in kept}) < 2:
            raise InputError(
                f"detection needs a backbone with stages, such as resnet50; {type(backbone).__name__} has none"
            )
        self.widths = [each.channels for each in kept]
        self._caught: dict[int, Tensor] = {}
        for place, each in enumerate(kept):
            backbone.get_submodule(each.module).register_forward_hook(self._catcher(place))

    def _catcher(self, place: int) -> Callable[..., None]:
        def catch(_: nn.Module, __: Any, output: Tensor) -> None:
            self._caught[place] = output

        return catch

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (n, c, h, w), large ones first."""
        self.backbone(images)
        caught, self._caught = self._caught, {}
        return {str(place): caught[place] for place in sorted(caught)}


class Pyramid(nn.Module):
    """Stages and the feature pyramid on them."""

    def __init__(self, backbone: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.stages = Stages(backbone)
        self.fpn = FeaturePyramidNetwork(self.stages.widths, WIDTH, LastLevelMaxPool(), norm)
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps of equal width."""
        return self.fpn(self.stages(images))


class Trunk(nn.Module):
    """A ResNet up to its third stage: the C4 of the field."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        act = "act1" if hasattr(backbone, "act1") else "relu"  # torchvision's name
        names = ("conv1", "bn1", act, "maxpool", "layer1", "layer2", "layer3")
        self.parts = nn.Sequential(*(getattr(backbone, name) for name in names))
        self.out_channels = stages_of(backbone)[-2].channels

    def forward(self, images: Tensor) -> Tensor:
        """The map (n, c, h, w) of stride 16."""
        return self.parts(images)


class Res5(nn.Module):
    """A ResNet's fourth stage on every region, and one more batch norm, then the mean: (k, c, 14, 14) -> (k, width).

    The norm is what pre-trained features need, which differ in scale (facebookresearch/moco, detection).
    """

    def __init__(self, backbone: Any, norm: Norm) -> None:
        super().__init__()
        self.width = int(backbone.num_features)
        self.layer4, self.norm = backbone.layer4, norm(self.width)

    def forward(self, regions: Tensor) -> Tensor:
        """One vector a region."""
        return self.norm(self.layer4(regions)).mean((2, 3))


def build_detector(
    backbone: nn.Module,
    classes: int,
    *,
    kind: Kind,
    masks: bool,
    short_sides: Sequence[int],
    test_side: int,
    mean: Sequence[float],
    std: Sequence[float],
    regions: int = 512,
    proposals: int = 1000,
    norm: Norm = nn.BatchNorm2d,
) -> FasterRCNN:
    """A detector of `classes` kinds of objects, which takes pictures in [0, 1].

    `c4` is Faster R-CNN on the third stage of a ResNet whose fourth looks at the regions; `fpn` has a feature pyramid,
    a box head of four convolutions and one layer, and where there are masks a mask head. Norms stand in pyramid and
    heads.

    Args:
        backbone: from timm; its weights become the detector's.
        classes: without the background.
        kind: c4 or fpn.
        masks: whether pixels are learnt too; fpn only.
        short_sides: of pictures in training, one drawn each time.
        test_side: of pictures in testing.
        mean: of each channel.
        std: of each channel.
        regions: of a picture that the heads learn from in a step.
        proposals: regions of a picture that the heads look at in testing; as many are drawn from in training, with C4
            twice as many.
        norm: makes a norm of so many channels.

    Raises:
        InputError: a backbone or a task that the kind cannot have.
    """
    reach = max(*short_sides, test_side)
    pictures: dict[str, Any] = {
        "min_size": tuple(short_sides) if len(short_sides) > 1 else short_sides[0],
        "max_size": round(LARGEST * reach),
        "rpn_post_nms_top_n_train": 2 * proposals if kind == "c4" else proposals,
        "rpn_post_nms_top_n_test": proposals,
        "box_batch_size_per_image": regions,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if kind == "c4":
        detector: FasterRCNN = _c4(backbone, classes, norm, pictures, masks=masks)
    else:
        detector = _fpn(backbone, classes, norm, pictures, masks=masks)
    detector.transform.min_size = tuple(short_sides)
    # In testing torchvision takes the last of the sizes.
    detector.test_side = test_side  # type: ignore[assignment]
    return detector


def _c4(backbone: nn.Module, classes: int, norm: Norm, pictures: dict[str, Any], *, masks: bool) -> FasterRCNN:
    if not hasattr(backbone, "layer4") or not hasattr(backbone, "maxpool"):
        raise InputError(f"detector c4 needs a ResNet, and this is {type(backbone).__name__}: take --detector fpn")
    if masks:
        raise InputError("detector c4 finds boxes: take --detector fpn for masks")
    head = Res5(backbone, norm)
    return FasterRCNN(
        Trunk(backbone),
        rpn_anchor_generator=AnchorGenerator((SIZES,), (RATIOS,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 0),
        box_head=head,
        box_predictor=FastRCNNPredictor(head.width, classes + 1),
        rpn_pre_nms_top_n_test=6000,
        rpn_pre_nms_top_n_train=12000,
        **pictures,
    )


def _fpn(backbone: nn.Module, classes: int, norm: Norm, pictures: dict[str, Any], *, masks: bool) -> FasterRCNN:
    pyramid = Pyramid(backbone, norm)
    levels = len(pyramid.stages.widths) + 1
    sizes = tuple((size,) for size in SIZES[:levels])
    names = [str(place) for place in range(levels - 1)]
    parts: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(sizes, (RATIOS,) * levels),
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2),
        "box_head": FastRCNNConvFCHead((WIDTH, 7, 7), [WIDTH] * 4, [1024], norm),
    }
    if not masks:
        return FasterRCNN(pyramid, classes + 1, **parts, **pictures)
    return MaskRCNN(
        pyramid,
        classes + 1,
        mask_roi_pool=MultiScaleRoIAlign(names, 14, 2),
        mask_head=MaskRCNNHeads(WIDTH, [WIDTH] * 4, 1, norm),
        **parts,
        **pictures,
    )


def freeze_backbone(detector: FasterRCNN) -> None:
    """Let only pyramid, proposals and heads learn; the backbone's batch norms keep their statistics."""
    parts: list[nn.Module] = (
        [detector.backbone.stages.backbone]  # type: ignore[list-item, union-attr]
        if isinstance(detector.backbone, Pyramid)
        else [detector.backbone, detector.roi_heads.box_head.layer4]  # type: ignore[list-item, union-attr]
    )
    for part in parts:
        part.requires_grad_(False)
        part.register_forward_pre_hook(lambda module, _: _still(module))


def _still(module: nn.Module) -> None:
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.eval()


def level_batch_norm(detector: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Precise batch norm: statistics that are plain means over the batches, of the weights as they are now."""
    norms = [each for each in detector.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.reset_running_stats()
        each.momentum = None
    with torch.no_grad():
        for batch in batches:
            forward(batch)
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
