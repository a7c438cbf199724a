"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width
from fullrank.networks.branch import Branch
from fullrank.networks.masked import BlockPredictor, MaskedEncoder, PixelDecoder, ReplacingEncoder, VisibleEncoder
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.patches import patchify, standardise_patches, unpatchify
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.siamese import Head, Siamese, Sides, Switches
from fullrank.networks.tokenizer import DiscreteVAE, PatchKMeans, Tokenizer

__all__ = [
    "Bank",
    "BlockPredictor",
    "Branch",
    "DiscreteVAE",
    "Head",
    "MaskedEncoder",
    "Momentum",
    "OnlineClassifier",
    "PatchKMeans",
    "PixelDecoder",
    "Queue",
    "ReplacingEncoder",
    "Siamese",
    "Sides",
    "Switches",
    "Tokenizer",
    "VisibleEncoder",
    "create_backbone",
    "feature_width",
    "mlp",
    "parse_widths",
    "patchify",
    "standardise_patches",
    "unit",
    "unpatchify",
]
