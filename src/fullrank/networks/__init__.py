"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width
from fullrank.networks.branch import Branch, FirstEntries
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.siamese import Head, Siamese, Sides, Switches

__all__ = [
    "Bank",
    "Branch",
    "FirstEntries",
    "Head",
    "Momentum",
    "OnlineClassifier",
    "Queue",
    "Siamese",
    "Sides",
    "Switches",
    "create_backbone",
    "feature_width",
    "mlp",
    "parse_widths",
    "unit",
]
