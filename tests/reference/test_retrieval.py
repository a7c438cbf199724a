"""Image-text retrieval: the ranks and recalls of VSE++'s evaluation, and its mean over five folds."""

import pytest
import torch

from fullrank.evaluation.retrieval import retrieval, retrieval_ranks
from tests.reference.state import tensor

CAPTIONS = 5  # of each image, in the authors' evaluation
DIRECTION = ("r1", "r5", "r10", "median", "mean")


@pytest.mark.parametrize("measure", ["cosine", "order"])
def test_ranks_and_recalls(measure, precision, fixture_file, error_table) -> None:
    file, name = fixture_file("retrieval_recall"), "retrieval_recall"
    suffix = "_order" if measure == "order" else ""
    images, captions = (tensor(file, f"in_{side}", precision) for side in ("images", "captions"))
    if measure == "order":
        images, captions = images.abs(), captions.abs()
    ranks = retrieval_ranks(images[::CAPTIONS], captions, measure=measure)
    figures = ranks.figures()
    ours = {"out_rsum": figures["rsum"]}
    for side, places, first in (("i2t", ranks.i2t, ranks.first_i2t), ("t2i", ranks.t2i, ranks.first_t2i)):
        ours |= {f"out_ranks_{side}": places, f"out_top1_{side}": first}
        ours[f"out_{side}"] = [figures[f"{side}_{figure}"] for figure in DIRECTION]
    expected = {key for key in file if key.startswith("out_") and key.endswith("_order") == bool(suffix)}
    assert {key + suffix for key in ours} == expected
    for key, value in ours.items():
        error_table.check(name, key + suffix, value, file[key + suffix], precision=precision)
    assert retrieval(images[::CAPTIONS], captions, measure=measure) == pytest.approx(figures)


def test_five_folds(fixture_file, error_table) -> None:
    file = fixture_file("vsepp_fold5")
    images, captions = tensor(file, "in_images"), tensor(file, "in_captions")
    figures = retrieval(images[::CAPTIONS], captions, folds=len(images) // (CAPTIONS * file["params"]["n"]))
    ours = [figures[f"{side}_{figure}"] for side in ("i2t", "t2i") for figure in DIRECTION]
    ours += [figures[name] for name in ("rsum", "i2t_recall", "t2i_recall")]
    error_table.check("vsepp_fold5", "out_mean", ours, file["out_mean"])
    assert {key for key in file if key.startswith("out_")} == {"out_mean"}


def test_captions_in_any_order(fixture_file) -> None:
    file = fixture_file("retrieval_recall")
    images, captions = tensor(file, "in_images")[::CAPTIONS], tensor(file, "in_captions")
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0))
    owners = torch.arange(len(images)).repeat_interleave(CAPTIONS)
    assert retrieval(images, captions[order], owners[order]) == pytest.approx(retrieval(images, captions))
