"""The parts that methods are built from: backbones, heads, branches, momentum encoders, memories."""

from fullrank.networks.backbone import create_backbone, feature_width, refuse_fixed_size
from fullrank.networks.branch import Branch, FirstEntries, UnitRows
from fullrank.networks.context import ContextNetwork, RowPredictor
from fullrank.networks.feature_maps import FeatureMaps
from fullrank.networks.masked import BlockPredictor, MaskedEncoder, PixelDecoder, ReplacingEncoder, VisibleEncoder
from fullrank.networks.memory import Bank, Queue, unit
from fullrank.networks.momentum import Momentum
from fullrank.networks.multicrop import MultiCrop
from fullrank.networks.online_classifier import OnlineClassifier
from fullrank.networks.patches import patchify, standardise_patches, unpatchify
from fullrank.networks.projector import mlp, parse_widths
from fullrank.networks.prototypes import Prototypes, ScaledPrototypes, freeze_early
from fullrank.networks.puzzle import Puzzle
from fullrank.networks.siamese import Head, Siamese, Sides, Switches
from fullrank.networks.split_colours import SideBySide, SplitColours
from fullrank.networks.text import create_text_encoder, is_text_encoder
from fullrank.networks.tokenizer import DiscreteVAE, PatchKMeans, Tokenizer
from fullrank.networks.vocabulary import Vocabulary, perplexities, word_weights

__all__ = [
    "Bank",
    "BlockPredictor",
    "Branch",
    "ContextNetwork",
    "DiscreteVAE",
    "FeatureMaps",
    "FirstEntries",
    "Head",
    "MaskedEncoder",
    "Momentum",
    "MultiCrop",
    "OnlineClassifier",
    "PatchKMeans",
    "PixelDecoder",
    "Prototypes",
    "Puzzle",
    "Queue",
    "ReplacingEncoder",
    "RowPredictor",
    "ScaledPrototypes",
    "Siamese",
    "SideBySide",
    "Sides",
    "SplitColours",
    "Switches",
    "Tokenizer",
    "UnitRows",
    "VisibleEncoder",
    "Vocabulary",
    "create_backbone",
    "create_text_encoder",
    "feature_width",
    "freeze_early",
    "is_text_encoder",
    "mlp",
    "parse_widths",
    "patchify",
    "perplexities",
    "refuse_fixed_size",
    "standardise_patches",
    "unit",
    "unpatchify",
    "word_weights",
]
