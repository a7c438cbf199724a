"""How lightly and stable-pretraining assemble the methods that fullrank also has, at the published widths.

lightly is put together as its examples do (examples/pytorch of its repository), from its own heads, losses, memory
banks and momentum updates; stable-pretraining has one module a method, whose teacher its callback moves after every
step. Both take the same backbone. Where a library's version of a method is another computation than the authors', it
is measured as it is, and those of `LESS_WORK` are no measure of speed. Two are left out because they are another
method: PIRL, whose puzzles both peers lack, and BEiT, whose backbone stable-pretraining cannot take.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Build = Callable[[Callable[..., nn.Module]], "Peer"]  # a maker of backbones -> the method around one


class Peer(nn.Module):
    """A method of another library: what it minimises, and what it does around the optimiser's step."""

    def loss(self, views: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def before_step(self) -> None:
        pass

    def after_step(self) -> None:
        pass


class Projected(Peer):
    """lightly: every view through backbone and head, one criterion on two views (VICReg, Barlow Twins, SimCLR)."""

    def __init__(self, backbone: nn.Module, head: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head, self.criterion = backbone, head, criterion

    def loss(self, views: list[Tensor]) -> Tensor:
        return self.criterion(*(self.head(self.backbone(view).flatten(start_dim=1)) for view in views))


def vicreg(backbone: nn.Module) -> Peer:
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead

    return Projected(backbone, VICRegProjectionHead(backbone.num_features, 8192, 8192, 3), VICRegLoss())


def barlow_twins(backbone: nn.Module) -> Peer:
    from lightly.loss import BarlowTwinsLoss
    from lightly.models.modules import BarlowTwinsProjectionHead

    head = BarlowTwinsProjectionHead(backbone.num_features, 8192, 8192)
    return Projected(backbone, head, BarlowTwinsLoss(lambda_param=0.0051))


def simclr(backbone: nn.Module) -> Peer:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    head = SimCLRProjectionHead(backbone.num_features, 2048, 128, num_layers=3)
    return Projected(backbone, head, NTXentLoss(temperature=0.1))


class DirectCLR(Peer):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import DirectCLRLoss

        super().__init__()
        self.backbone = backbone
        share = 360 / 2048
        self.criterion = DirectCLRLoss(loss_dim=round(share * backbone.num_features), temperature=0.1)

    def loss(self, views: list[Tensor]) -> Tensor:
        return self.criterion(*self.backbone(torch.cat(views)).chunk(2, dim=0))


class SimSiam(Peer):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        super().__init__()
        self.backbone = backbone
        self.projection_head = SimSiamProjectionHead(backbone.num_features, 2048, 2048)
        self.prediction_head = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, views: list[Tensor]) -> Tensor:
        embeddings = [self.projection_head(self.backbone(view).flatten(start_dim=1)) for view in views]
        (z0, p0), (z1, p1) = ((z.detach(), self.prediction_head(z)) for z in embeddings)
        return 0.5 * (self.criterion(z0, p1) + self.criterion(z1, p0))


class WithMomentum(Peer):
    """lightly: backbone and projection head beside copies that follow them at the start of every step."""

    def __init__(self, backbone: nn.Module, head: nn.Module, momentum: float) -> None:
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        self.backbone, self.projection_head, self.momentum = backbone, head, momentum
        self.backbone_momentum, self.projection_head_momentum = copy.deepcopy(backbone), copy.deepcopy(head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def update(self) -> None:
        from lightly.models.utils import update_momentum

        update_momentum(self.backbone, self.backbone_momentum, m=self.momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=self.momentum)

    def project(self, view: Tensor) -> Tensor:
        return self.projection_head(self.backbone(view).flatten(start_dim=1))

    def target(self, view: Tensor) -> Tensor:
        return self.projection_head_momentum(self.backbone_momentum(view).flatten(start_dim=1)).detach()


class BYOL(WithMomentum):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__(backbone, BYOLProjectionHead(backbone.num_features, 4096, 256), 0.996)
        self.prediction_head = BYOLPredictionHead(256, 4096, 256)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, views: list[Tensor]) -> Tensor:
        self.update()
        p0, z0 = self.prediction_head(self.project(views[0])), self.target(views[0])
        p1, z1 = self.prediction_head(self.project(views[1])), self.target(views[1])
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))


class MoCo(WithMomentum):
    def __init__(self, backbone: nn.Module, head: nn.Module, temperature: float) -> None:
        from lightly.loss import NTXentLoss

        super().__init__(backbone, head, 0.999)
        self.criterion = NTXentLoss(temperature, memory_bank_size=(65536, 128))

    def loss(self, views: list[Tensor]) -> Tensor:
        self.update()
        return self.criterion(self.project(views[0]), self.target(views[1]))


def moco_v1(backbone: nn.Module) -> Peer:
    from lightly.models.modules.heads import ProjectionHead

    return MoCo(backbone, ProjectionHead([(backbone.num_features, 128, None, None)]), 0.07)


def moco_v2(backbone: nn.Module) -> Peer:
    from lightly.models.modules import MoCoProjectionHead

    return MoCo(backbone, MoCoProjectionHead(backbone.num_features, 2048, 128), 0.2)


class NNCLR(Peer):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead, NNMemoryBankModule

        super().__init__()
        self.backbone = backbone
        self.projection_head = NNCLRProjectionHead(backbone.num_features, 2048, 256)
        self.prediction_head = NNCLRPredictionHead(256, 4096, 256)
        self.memory_bank = NNMemoryBankModule(size=(98304, 256))
        self.criterion = NTXentLoss(0.1)

    def loss(self, views: list[Tensor]) -> Tensor:
        embeddings = [self.projection_head(self.backbone(view).flatten(start_dim=1)) for view in views]
        p0, p1 = (self.prediction_head(z) for z in embeddings)
        z0 = self.memory_bank(embeddings[0].detach(), update=False)
        z1 = self.memory_bank(embeddings[1].detach(), update=True)
        return 0.5 * (self.criterion(z0, p1) + self.criterion(z1, p0))


class SwAV(Peer):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        super().__init__()
        self.backbone = backbone
        self.projection_head = SwaVProjectionHead(backbone.num_features, 2048, 128)
        self.prototypes = SwaVPrototypes(128, n_prototypes=3000)
        self.criterion = SwaVLoss()

    def loss(self, views: list[Tensor]) -> Tensor:
        self.prototypes.normalize()
        scores = []
        for view in views:
            z = self.projection_head(self.backbone(view).flatten(start_dim=1))
            scores.append(self.prototypes(functional.normalize(z, dim=1, p=2)))
        return self.criterion(scores[:2], scores[2:]).squeeze()


class DINO(WithMomentum):
    def __init__(self, backbone: nn.Module) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        head = DINOProjectionHead(backbone.num_features, 2048, 256, 65536, freeze_last_layer=-1)
        # lightly builds the teacher's head anew, as a layer with weight norm cannot be copied
        super().__init__(backbone, nn.Identity(), 0.996)
        self.projection_head = head
        self.projection_head_momentum = DINOProjectionHead(backbone.num_features, 2048, 256, 65536)
        self.projection_head_momentum.requires_grad_(False)
        self.criterion = DINOLoss(output_dim=65536, warmup_teacher_temp_epochs=5)

    def loss(self, views: list[Tensor]) -> Tensor:
        self.update()
        targets = [self.target(view) for view in views[:2]]
        return self.criterion(targets, [self.project(view) for view in views], epoch=0)

    def before_step(self) -> None:
        self.projection_head.cancel_last_layer_gradients(current_epoch=0)


class MAE(Peer):
    def __init__(self, backbone: Any) -> None:
        from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
        from lightly.models.modules.masked_vision_transformer_timm import init_weights

        super().__init__()
        width = 512
        self.patch_size = backbone.patch_embed.patch_size[0]
        self.backbone = MaskedVisionTransformerTIMM(vit=backbone)
        self.sequence_length = self.backbone.sequence_length
        self.decoder_embed = nn.Linear(backbone.embed_dim, width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=backbone.patch_embed.num_patches,
            embed_dim=width,
            depth=8,
            num_heads=16,
            num_prefix_tokens=backbone.num_prefix_tokens,
        )
        self.prediction_head = nn.Linear(width, self.patch_size**2 * 3)
        self.decoder_embed.apply(init_weights)
        self.prediction_head.apply(init_weights)

    def loss(self, views: list[Tensor]) -> Tensor:
        from lightly.models import utils

        images = views[0]
        size = (len(images), self.sequence_length)
        keep, hidden = utils.random_token_mask(size=size, mask_ratio=0.75, device=images.device)
        decoded = self.decoder_embed(self.backbone.encode(images=images, idx_keep=keep))
        tokens = decoded.new_zeros(*size, decoded.shape[-1])
        tokens = utils.set_at_index(tokens, keep, decoded.type_as(tokens))
        predicted = self.prediction_head(utils.get_at_index(self.decoder(tokens, idx_mask=hidden), hidden))
        targets = utils.get_at_index(utils.patchify(images, self.patch_size), hidden - 1)
        return functional.mse_loss(predicted, utils.normalize_mean_var(targets, dim=-1))


class MSN(Peer):
    def __init__(self, backbone: Any) -> None:
        from lightly.loss import MSNLoss
        from lightly.models import utils
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.heads import MSNProjectionHead

        super().__init__()
        self.anchor_backbone = MaskedVisionTransformerTIMM(vit=backbone)
        self.anchor_projection_head = MSNProjectionHead(backbone.embed_dim, 2048, 256)
        self.backbone = copy.deepcopy(self.anchor_backbone)
        self.projection_head = copy.deepcopy(self.anchor_projection_head)
        utils.deactivate_requires_grad(self.backbone)
        utils.deactivate_requires_grad(self.projection_head)
        self.prototypes = nn.Linear(256, 1024, bias=False).weight
        self.criterion = MSNLoss()

    def loss(self, views: list[Tensor]) -> Tensor:
        from lightly.models import utils

        utils.update_momentum(self.anchor_backbone, self.backbone, 0.996)
        utils.update_momentum(self.anchor_projection_head, self.projection_head, 0.996)
        targets = self.projection_head(self.backbone(views[0]))
        # The library's example masks the focal crops too; here, as in the authors' code, they stay whole.
        focal = self.anchor_projection_head(self.anchor_backbone(torch.cat(views[2:])))
        anchors = torch.cat([self.masked(views[1]), focal])
        return self.criterion(anchors, targets, self.prototypes.data)

    def masked(self, images: Tensor) -> Tensor:
        from lightly.models import utils

        patch = self.anchor_backbone.vit.patch_embed.patch_size[0]
        size = (len(images), (images.shape[-1] // patch) ** 2 + 1)
        keep, _ = utils.random_token_mask(size=size, mask_ratio=0.15, device=images.device)
        return self.anchor_projection_head(self.anchor_backbone(images=images, idx_keep=keep))


class IJEPA(Peer):
    def __init__(self, backbone: Any) -> None:
        from lightly.data import IJEPAMaskCollator
        from lightly.models import utils
        from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM
        from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM

        super().__init__()
        self.encoder = MaskedVisionTransformerTIMM(vit=backbone)
        patches = backbone.patch_embed
        heads = backbone.blocks[0].attn.num_heads
        self.predictor = IJEPAPredictorTIMM(patches.num_patches, 12, backbone.embed_dim, 384, heads)
        self.target_encoder = copy.deepcopy(self.encoder)
        utils.deactivate_requires_grad(self.target_encoder)
        self.collator = IJEPAMaskCollator(
            input_size=patches.img_size,
            patch_size=patches.patch_size[0],
            enc_mask_scale=(0.85, 1.0),
            pred_mask_scale=(0.15, 0.2),
            aspect_ratio=(0.75, 1.5),
            nenc=1,
            npred=4,
        )

    def loss(self, views: list[Tensor]) -> Tensor:
        from lightly.models import utils

        _, contexts, targets = self.collator([torch.zeros(1)] * len(views[0]))
        tokens = self.encoder.encode(views[0], idx_keep=contexts[0])
        predicted = self.predictor(tokens, contexts, targets)
        with torch.no_grad():
            wanted = self.target_encoder.encode(views[0])
            wanted = functional.layer_norm(wanted, (wanted.size(-1),))
            wanted = utils.apply_masks(wanted, targets)
            wanted = utils.repeat_interleave_batch(wanted, len(views[0]), repeat=len(contexts))
        return functional.smooth_l1_loss(predicted, wanted)

    def after_step(self) -> None:
        with torch.no_grad():
            for ours, theirs in zip(self.encoder.parameters(), self.target_encoder.parameters(), strict=True):
                theirs.data.mul_(0.996).add_((1.0 - 0.996) * ours.detach().data)


class Stable(Peer):
    """A module of stable-pretraining: views in, an output with `loss`; its callback moves the teachers after a step."""

    def __init__(self, name: str, backbone: nn.Module, take: Callable[[list[Tensor]], dict], **options: Any) -> None:
        import stable_pretraining
        from stable_pretraining.backbone import TeacherStudentWrapper

        super().__init__()
        self.method = getattr(stable_pretraining.methods, name)(backbone, **options)
        self.take = take
        self.teachers = [each for each in self.method.modules() if isinstance(each, TeacherStudentWrapper)]
        if hasattr(self.method, "queue"):  # full, as it is in all but the first steps of a run
            queue = self.method.queue
            queue.append(functional.normalize(torch.randn_like(queue.out), dim=-1))

    def loss(self, views: list[Tensor]) -> Tensor:
        return self.method(**self.take(views)).loss

    def after_step(self) -> None:
        for teacher in self.teachers:
            teacher.update_teacher()


def pair(views: list[Tensor]) -> dict[str, Any]:
    return {"view1": views[0], "view2": views[1]}


def crops(views: list[Tensor]) -> dict[str, Any]:
    return {"global_views": views[:2], "local_views": views[2:]}


def image(views: list[Tensor]) -> dict[str, Any]:
    return {"images": views[0]}


def stable(name: str, take: Callable[[list[Tensor]], dict[str, Any]] = pair, **options: Any) -> Build:
    return lambda make: Stable(name, make(), take, **options)


def lightly(build: Callable[[Any], Peer], **backbone: Any) -> Build:
    return lambda make: build(make(**backbone))


PEERS: dict[str, dict[str, Build]] = {
    "vicreg": {"lightly": lightly(vicreg), "stable-pretraining": stable("VICReg", projector_dims=(8192, 8192, 8192))},
    "barlowtwins": {
        "lightly": lightly(barlow_twins),
        "stable-pretraining": stable("BarlowTwins", projector_dims=(8192, 8192, 8192)),
    },
    "byol": {"lightly": lightly(BYOL), "stable-pretraining": stable("BYOL", ema_decay_start=0.996)},
    "simsiam": {"lightly": lightly(SimSiam), "stable-pretraining": stable("SimSiam")},
    "simclr": {
        "lightly": lightly(simclr),
        "stable-pretraining": stable("SimCLR", projector_dims=(2048, 2048, 128), temperature=0.1),
    },
    "nnclr": {"lightly": lightly(NNCLR), "stable-pretraining": stable("NNCLR", queue_length=98304)},
    "directclr": {"lightly": lightly(DirectCLR)},
    "moco": {"lightly": lightly(moco_v1)},
    "mocov2": {"lightly": lightly(moco_v2), "stable-pretraining": stable("MoCov2")},
    "swav": {"lightly": lightly(SwAV), "stable-pretraining": stable("SwAV", crops)},
    "dino": {"lightly": lightly(DINO), "stable-pretraining": stable("DINO", crops)},
    "mae": {"lightly": lightly(MAE), "stable-pretraining": stable("MAE", image)},
    "msn": {"lightly": lightly(MSN, dynamic_img_size=True)},
    "ijepa": {"lightly": lightly(IJEPA), "stable-pretraining": stable("IJEPA", image, predictor_depth=12)},
}
# What computes less than the method does: it is timed, and no ratio is formed to it.
LESS_WORK = {
    ("mae", "stable-pretraining"): "its decoder does not see the class token: 64 tokens in place of 65",
    ("ijepa", "stable-pretraining"): "its predictor sees the context and all four targets in one sequence, where the "
    "authors' has a sequence for each target with the context in front: about half the tokens",
}
