"""DINO's weighted kNN classifier: votes, predictions, accuracies."""

import numpy as np
import pytest
import torch

from fullrank.evaluation import knn
from fullrank.evaluation.knn import knn_votes

NAME = "eval_knn"


def test_votes(precision: str, fixture_file, error_table) -> None:
    file = fixture_file(NAME)
    bank, queries = (torch.tensor(file[key], dtype=getattr(torch, precision)) for key in ("in_train", "in_test"))
    nearest = (file["in_test"] @ file["in_train"].T).max(axis=1, keepdims=True)
    for case, (k, temperature) in enumerate(zip(file["in_k"].tolist(), file["in_T"].tolist(), strict=True)):
        votes = knn_votes(
            bank,
            torch.tensor(file["in_train_labels"]),
            queries,
            k=[k],
            temperature=temperature,
            classes=file["out_votes"].shape[2],
        )[0]
        # Ours are relative to the vote of the nearest neighbour.
        ours = votes.double().numpy() * np.exp(nearest / temperature)
        error_table.check(NAME, "out_votes", ours, file["out_votes"][case], precision=precision)
        if precision == "float64":  # rounding may turn near ties
            assert np.array_equal(votes.argmax(1).numpy(), file["out_pred"][case])


def test_accuracies(fixture_file, error_table) -> None:
    file = fixture_file(NAME)
    arrays = [file[key] for key in ("in_train", "in_train_labels", "in_test", "in_test_labels")]
    for temperature in np.unique(file["in_T"]).tolist():
        cases = np.flatnonzero(file["in_T"] == temperature)
        result = knn(*arrays, k=file["in_k"][cases].tolist(), temperature=temperature)
        for case in cases:
            scores = result.details[f"k={min(file['in_k'][case], len(file['in_train']))}"]
            assert scores["top1"] == pytest.approx(file["out_top1"][case], rel=1e-9)
            # Elsewhere theirs depends on the order of classes that nobody voted for.
            if file["out_top5_defined"][case]:
                assert scores["top5"] == pytest.approx(file["out_top5"][case], rel=1e-9)
