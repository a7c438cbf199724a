"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width
from fullrank.networks.branch import Branch, UnitRows
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.siamese import Head, Siamese, Sides, Switches
from fullrank.networks.text import create_text_encoder, is_text_encoder

__all__ = [
    "Bank",
    "Branch",
    "Head",
    "Momentum",
    "OnlineClassifier",
    "Queue",
    "Siamese",
    "Sides",
    "Switches",
    "UnitRows",
    "create_backbone",
    "create_text_encoder",
    "feature_width",
    "is_text_encoder",
    "mlp",
    "parse_widths",
    "unit",
]
