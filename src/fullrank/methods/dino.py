"""DINO: l = mean_{a, v != a} -softmax((t_a - c) / tau_t)' log softmax(s_v / tau), t a momentum teacher, c its mean.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin: "Emerging Properties in Self-Supervised Vision Transformers",
ICCV 2021, https://arxiv.org/abs/2104.14294; the authors' code is facebookresearch/dino.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.methods.method import Batch, Method, Optimization, Step, register
from fullrank.networks import Head, Momentum, MultiCrop, ScaledPrototypes, UnitRows, feature_width, freeze_early
from fullrank.networks.vit import add_drop_path, truncated_normal
from fullrank.schedules import Progress, Schedule, cosine, linear
from fullrank.views import dino_views

GLOBAL = 2  # views, the first ones, that the teacher sees


@register("dino")
class DINO(Method):
    """Every view of the student predicts the teacher's distribution over prototypes for the two global views.

    The teacher is an average of the student, and what is kept after training. Its logits are centred, which forbids
    one prototype for all, and sharpened, which forbids all prototypes for each; `centering: false` shows the collapse.
    The published run of ResNet-50 uses sgd, learning rate 0.03, weight decay 1e-4 throughout, crop scales from 0.14.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`).
        projector: widths of the projector's layers; the last is the bottleneck in front of the prototypes.
        batch_norm: whether the projector has batch norm.
        prototypes: how many.
        norm_last_layer: whether the prototypes' lengths stay 1.
        temperature: tau, of the student.
        teacher_temperature: tau_t.
        warmup_teacher_temperature: tau_t in the first epoch.
        warmup_teacher_epochs: over which it goes to `teacher_temperature`; the run of 300 epochs takes 30, to 0.07.
        centering: whether the centre c follows the teacher's logits; else it stays 0.
        center_momentum: of c.
        momentum: of the teacher at the start; it goes to 1 along a cosine.
        freeze_epochs: in which the prototypes do not learn.
        clip: largest norm of the gradient of each parameter; 0 for none.
        drop_path: of the student's last block, where the backbone is a vision transformer.
    """

    family = "self-distillation"
    paper = "Caron et al., ICCV 2021, arXiv:2104.14294"
    views = staticmethod(dino_views)
    fewest_views = 2
    on_sphere = True
    published = Optimization(
        "adamw",
        learning_rate=5e-4,
        weight_decay=0.04,
        weight_decay_end=0.4,
        batch_size=512,
        epochs=100,
        schedule=Schedule(end_factor=0.001, reaches_peak=True),
    )
    default_backbone = "vit_small_patch16_224"
    levers = {"centering": "variance"}  # noqa: RUF012
    no_accumulation = "its centre follows every forward pass"
    one_network = "the teacher is the average of one network"
    center: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: str = "2048-2048-256",
        batch_norm: bool = False,
        prototypes: int = 65536,
        norm_last_layer: bool = True,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_teacher_epochs: int = 0,
        centering: bool = True,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
        freeze_epochs: float = 1.0,
        clip: float = 3.0,
        drop_path: float = 0.1,
    ) -> None:
        head = Head(projector, {"activation": nn.GELU})
        layers = truncated_normal(head.build(feature_width(backbone), norm=batch_norm))
        width = head.output_width(feature_width(backbone))
        network = MultiCrop(backbone, nn.Sequential(*layers, UnitRows()))
        super().__init__(network)
        self.prototypes = ScaledPrototypes(width, prototypes, fixed_length=norm_last_layer)
        self.teacher, self.teacher_prototypes = Momentum(network), Momentum(self.prototypes)
        self.register_buffer("center", torch.zeros(prototypes))
        add_drop_path(backbone, drop_path)
        self.centering, self.center_momentum, self.momentum = centering, center_momentum, momentum
        self.temperature = temperature
        self.sharpening = (warmup_teacher_temperature, teacher_temperature, warmup_teacher_epochs)
        self.freeze_epochs, self.clip = freeze_epochs, clip

    @property
    def kept(self) -> MultiCrop:
        """The teacher."""
        return self.teacher.copy

    def forward(self, batch: Batch) -> Step:
        """The loss with the centre as it is, which then moves."""
        representations, embeddings = self.network(batch.views)  # (v, n, y), (v, n, z)
        targets = self.teacher_prototypes(self.teacher(batch.views[:GLOBAL])[1])
        terms = losses.dino(
            self.prototypes(embeddings.flatten(0, 1)),
            teacher=targets,
            center=self.center,
            teacher_temperature=self.teacher_temperature(batch.progress.epoch),
            student_temperature=self.temperature,
        )
        if self.centering and self.training:
            self.center.copy_(losses.dino_center(self.center, targets, momentum=self.center_momentum))
        return Step(terms.pop("loss"), terms, list(representations), list(embeddings))

    def teacher_temperature(self, epoch: int) -> float:
        """tau_t, on a line over the first epochs."""
        start, end, epochs = self.sharpening
        return linear(min(1.0, epoch / max(1, epochs - 1)), start, end) if epochs else end

    def before_step(self, progress: Progress) -> None:
        """Clip every parameter's gradient by itself; prototypes stand still at first."""
        for parameter in self.parameters() if self.clip else ():
            nn.utils.clip_grad_norm_(parameter, self.clip)
        freeze_early(self.prototypes, self.freeze_epochs, progress)

    def after_step(self, progress: Progress) -> None:
        """The teacher follows."""
        momentum = cosine(progress.share, self.momentum, 1.0)
        self.teacher.follow(self.network, momentum)
        self.teacher_prototypes.follow(self.prototypes, momentum)
