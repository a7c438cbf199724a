"""MSN: l = mean_v -t' log p_v + lambda [log K - H(mean p)], p of masked views and focal crops, t of the whole view.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat, Ballas: "Masked Siamese Networks for Label-Efficient
Learning", ECCV 2022, https://arxiv.org/abs/2204.07141; the authors' code is facebookresearch/msn.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Momentum, MultiCrop, Prototypes, feature_width
from fullrank.networks.vit import as_transformer, grid_of, truncated_normal
from fullrank.schedules import Progress, Schedule, linear
from fullrank.views import msn_views

HORIZON = 1.25  # lengths of the run over which all schedules stretch


@register("msn")
class MSN(Method):
    """View 1 goes whole to a momentum encoder; all others, the large ones masked, must find the same prototypes.

    The large views lose the same random patches, one draw for all images; the small, focal crops lose none. The
    momentum encoder is kept after training. The authors' code adds the prototypes' gradients up over processes; here
    they are averaged as all others, so that several processes equal one.

    Args:
        backbone: a vision transformer.
        projector: widths of the projector's layers; views of each size go through it apart.
        prototypes: how many.
        temperature: of all assignments.
        sharpening: the targets' power is one over this; the lower, the harder.
        final_sharpening: where it would be a quarter of the run after its end, on a line.
        sinkhorn: whether the targets are balanced too, as released; in the paper that is an option.
        me_max: lambda, which keeps all prototypes in use.
        entropy: weight of the anchors' mean entropy.
        smoothing: share of every assignment that is spread over all prototypes.
        patch_drop: share of the patches of large views that are dropped: 0.15 for ViT-S, 0.3 for ViT-B, 0.7 for ViT-L.
        momentum: of the target encoder at the start; it goes to 1 on a line.
        clip: largest norm of the gradient of backbone and projector together; 0 for none.
    """

    family = "masked image modelling"
    paper = "Assran et al., ECCV 2022, arXiv:2204.07141"
    views = staticmethod(msn_views)
    fewest_views = 2
    on_sphere = True
    levers = {"me_max": "variance"}  # noqa: RUF012
    published = Optimization(
        "adamw",
        learning_rate=2.5e-4,
        weight_decay=0.04,
        weight_decay_end=0.4,
        batch_size=1024,
        epochs=800,
        schedule=Schedule(15, start_factor=0.2, end_factor=0.001, first_step=1, stretch=HORIZON),
        no_decay=("prototypes.*",),
    )
    default_backbone = "vit_small_patch16_224"
    one_network = "the target encoder is the average of one network"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-2048-256",
        prototypes: int = 1024,
        temperature: float = 0.1,
        sharpening: float = 0.25,
        final_sharpening: float = 0.25,
        sinkhorn: bool = True,
        me_max: float = 1.0,
        entropy: float = 0.0,
        smoothing: float = 0.0,
        patch_drop: float = 0.15,
        momentum: float = 0.996,
        clip: float = 3.0,
    ) -> None:
        head = Head(projector, {"activation": nn.GELU})
        layers = truncated_normal(head.build(feature_width(as_transformer(backbone, "msn")), norm=True))
        width = head.output_width(feature_width(backbone))
        network = MultiCrop(backbone, layers, joint=False, resizing="msn")
        super().__init__(network)
        self.prototypes = Prototypes(width, prototypes)
        self.target = Momentum(network)
        self.assignment: dict[str, Any] = {"temperature": temperature, "smoothing": smoothing}
        self.weights: dict[str, Any] = {"me_max": me_max, "entropy": entropy}
        self.sharpening, self.sinkhorn = (sharpening, final_sharpening), sinkhorn
        self.patch_drop, self.momentum, self.clip = patch_drop, momentum, clip

    @property
    def kept(self) -> MultiCrop:
        """The target encoder."""
        return self.target.copy

    def forward(self, batch: Batch) -> Step:
        """The anchors' assignments against those of the whole view."""
        whole, *anchors = batch.views
        representations, embeddings = self.network(anchors, self.kept_patches(anchors[0]))  # (v, n, y), (v, n, z)
        targets = losses.msn_targets(
            self.target([whole])[1][0],
            self.prototypes.weight,
            sharpening=linear(batch.progress.share / HORIZON, *self.sharpening),
            balanced=self.sinkhorn,
            **self.assignment,
        )
        terms = losses.msn(
            embeddings.flatten(0, 1),
            targets=targets,
            prototypes=self.prototypes.weight,
            **self.assignment,
            **self.weights,
        )
        return Step(terms.pop("loss"), terms, list(representations), list(embeddings))

    def kept_patches(self, images: Tensor) -> Tensor | None:
        """Which patches every large view keeps, in random order; None for all. Raises `InputError` where it is none."""
        if not self.patch_drop:
            return None
        patches = math.prod(grid_of(as_transformer(self.network.backbone, "msn"), images))
        kept = int(patches * (1 - self.patch_drop))
        if not kept:
            raise InputError(f"patch_drop {self.patch_drop} leaves none of {patches} patches: give less")
        return torch.randperm(patches)[:kept].to(images.device)

    def before_step(self, progress: Progress) -> None:
        """Clip backbone and projector together, the prototypes not."""
        if self.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)

    def after_step(self, progress: Progress) -> None:
        """The target encoder follows."""
        self.target.follow(self.network, linear(progress.share / HORIZON, self.momentum, 1.0))
