"""Frozen features -> protocol: every protocol is a function of stored arrays and gives one `Result`."""

from fullrank.evaluation.factors import FactorScore, factor_scores
from fullrank.evaluation.knn import knn
from fullrank.evaluation.linear import linear_probe
from fullrank.evaluation.protocol import PROTOCOLS, Result
from fullrank.evaluation.retrieval import retrieval

__all__ = ["PROTOCOLS", "FactorScore", "Result", "factor_scores", "knn", "linear_probe", "retrieval"]
