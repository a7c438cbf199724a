"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width, refuse_fixed_size
from fullrank.networks.branch import Branch, FirstEntries
from fullrank.networks.context import ContextNetwork, RowPredictor
from fullrank.networks.feature_maps import FeatureMaps
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.puzzle import Puzzle
from fullrank.networks.siamese import Head, Siamese, Sides, Switches
from fullrank.networks.split_colours import SideBySide, SplitColours
from fullrank.networks.vocabulary import Vocabulary, perplexities, word_weights

__all__ = [
    "Bank",
    "Branch",
    "ContextNetwork",
    "FeatureMaps",
    "FirstEntries",
    "Head",
    "Momentum",
    "OnlineClassifier",
    "Puzzle",
    "Queue",
    "RowPredictor",
    "Siamese",
    "SideBySide",
    "Sides",
    "SplitColours",
    "Switches",
    "Vocabulary",
    "create_backbone",
    "feature_width",
    "mlp",
    "parse_widths",
    "perplexities",
    "refuse_fixed_size",
    "unit",
    "word_weights",
]
