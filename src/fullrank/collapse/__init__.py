"""Collapse of embeddings: measured, named and explained, from arrays or from statistics gathered in a stream."""

from fullrank.collapse.live import live_measures, warn
from fullrank.collapse.measures import (
    PowerLaw,
    absolute_correlation,
    alignment,
    alpha_req,
    coherence,
    constant_dimensions,
    effective_rank,
    eigenvalues,
    lidar,
    nesum,
    normalised_std,
    participation_ratio,
    power_law,
    pseudo_condition_number,
    rankme,
    self_cluster,
    signed_correlation,
    singular_values,
    squared_correlation,
    stable_rank,
    standard_deviation,
    to_sphere,
    uniformity,
    variance_rank,
)
from fullrank.collapse.statistics import PairedStatistics, Statistics
from fullrank.collapse.verdict import Verdict, diagnose

__all__ = [
    "PairedStatistics", "PowerLaw", "Statistics", "Verdict", "absolute_correlation", "alignment", "alpha_req",
    "coherence", "constant_dimensions", "diagnose", "effective_rank", "eigenvalues", "lidar", "live_measures",
    "nesum", "normalised_std", "participation_ratio", "power_law", "pseudo_condition_number", "rankme",
    "self_cluster", "signed_correlation", "singular_values", "squared_correlation", "stable_rank",
    "standard_deviation", "to_sphere", "uniformity", "variance_rank", "warn",
]  # fmt: skip
