"""A run folder -> one self-contained page that says in words and pictures whether the embedding collapsed."""

from fullrank.report.content import ReportData
from fullrank.report.page import build_diagnosis_page, build_report

__all__ = ["ReportData", "build_diagnosis_page", "build_report"]
