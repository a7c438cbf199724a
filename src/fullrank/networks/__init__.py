"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width
from fullrank.networks.branch import Branch, FirstEntries
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.puzzle import Puzzle
from fullrank.networks.siamese import Head, Siamese, Sides, Switches
from fullrank.networks.split_colours import SideBySide, SplitColours

__all__ = [
    "Bank",
    "Branch",
    "FirstEntries",
    "Head",
    "Momentum",
    "OnlineClassifier",
    "Puzzle",
    "Queue",
    "Siamese",
    "SideBySide",
    "Sides",
    "SplitColours",
    "Switches",
    "create_backbone",
    "feature_width",
    "mlp",
    "parse_widths",
    "unit",
]
