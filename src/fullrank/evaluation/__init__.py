"""Frozen features -> protocol: every protocol is a function of stored arrays and gives one `Result`."""

from fullrank.evaluation.factors import FactorScore, factor_scores
from fullrank.evaluation.knn import knn
from fullrank.evaluation.linear import linear_probe
from fullrank.evaluation.multilabel import multilabel_probe
from fullrank.evaluation.protocol import MULTILABEL, PROTOCOLS, Result
from fullrank.evaluation.retrieval import retrieval
from fullrank.evaluation.svm import svm_protocol

__all__ = [
    "MULTILABEL",
    "PROTOCOLS",
    "FactorScore",
    "Result",
    "factor_scores",
    "knn",
    "linear_probe",
    "multilabel_probe",
    "retrieval",
    "svm_protocol",
]
