"""The parts that methods are built from: backbones, heads, branches."""

from fullrank.networks.backbone import create_backbone, feature_width
from fullrank.networks.branch import Branch
from fullrank.networks.projector import mlp

__all__ = ["Branch", "create_backbone", "feature_width", "mlp"]
