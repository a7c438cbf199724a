"""Image-text retrieval on cases that are counted by hand."""

import sys

import numpy as np
import pytest
import torch

from fullrank.errors import InputError
from fullrank.evaluation import retrieval as module_function
from fullrank.evaluation.retrieval import retrieval, retrieval_ranks

IMAGES = torch.eye(3)
# Captions of images 0, 0, 1, 2: the second of image 0 looks like image 1.
CAPTIONS = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.2], [0.3, 0.8, 0.0], [0.0, 0.0, 0.1]])
OWNERS = torch.tensor([0, 0, 1, 2])


def test_ranks_by_hand():
    ranks = retrieval_ranks(IMAGES, CAPTIONS, OWNERS)
    assert ranks.i2t.tolist() == [0, 1, 1]
    assert ranks.t2i.tolist() == [0, 2, 0, 0]
    assert ranks.first_i2t.tolist() == [0, 1, 1]
    assert ranks.first_t2i.tolist() == [0, 1, 1, 2]
    figures = ranks.figures()
    assert figures["i2t_r1"] == pytest.approx(100 / 3)
    assert figures["t2i_r1"] == 75
    assert (figures["i2t_median"], figures["t2i_median"]) == (2, 1)
    assert (figures["i2t_mean"], figures["t2i_mean"]) == pytest.approx((5 / 3, 1.5))
    assert figures["rsum"] == pytest.approx(100 / 3 + 75 + 400)


@pytest.mark.parametrize("measure", ["cosine", "order"])
def test_parts_of_the_scores_are_all_of_them(measure, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.rand(n, 6, generator=generator) for n in (20, 60))
    whole = retrieval_ranks(images, captions, measure=measure)
    monkeypatch.setattr(sys.modules[retrieval.__module__], "HELD", 20 * 7 * 6)
    parts = retrieval_ranks(images, captions, measure=measure)
    for name in ("i2t", "t2i", "first_i2t", "first_t2i"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))


def test_folds_are_evaluated_apart():
    generator = torch.Generator().manual_seed(1)
    images, captions = (torch.randn(n, 4, generator=generator) for n in (12, 24))
    parts = [retrieval(images[k : k + 6], captions[2 * k : 2 * k + 12]) for k in (0, 6)]
    found = retrieval(images, captions, folds=2)
    assert found == pytest.approx({name: np.mean([part[name] for part in parts]) for name in parts[0]})
    assert module_function is retrieval


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((IMAGES, CAPTIONS), {}, "4 captions do not divide among 3 images: give owners"),
        ((IMAGES, CAPTIONS[:, :2], OWNERS), {}, "images are 3 wide and captions 2"),
        ((IMAGES, CAPTIONS, OWNERS.clamp_max(1)), {}, "expected 4 numbers 0 .. 2, each image among them"),
        ((IMAGES, CAPTIONS, OWNERS), {"folds": 2}, "3 images do not make 2 equal folds"),
        ((IMAGES, CAPTIONS, OWNERS), {"measure": "angle"}, "unknown measure 'angle'"),
        ((IMAGES * torch.nan, CAPTIONS, OWNERS), {}, "3 of 3 image features hold NaN"),
    ],
)
def test_what_does_not_fit(arguments, options, words):
    with pytest.raises(InputError) as error:
        retrieval(*arguments, **options)
    assert words in str(error.value)


def test_a_point_is_found_no_better_than_by_chance():
    """Where everything scores the same, the right answer stands in the middle."""
    figures = retrieval(torch.ones(100, 4), torch.ones(500, 4))
    assert [figures[f"{ways}_r{k}"] for ways in ("i2t", "t2i") for k in (1, 5, 10)] == [0.0] * 6
    assert (figures["i2t_median"], figures["t2i_median"]) == (248.0, 50.0)
    assert retrieval(torch.eye(100), torch.ones(500, 100))["t2i_r10"] == 0.0


def test_a_tie_of_two_counts_for_the_right_answer():
    images, captions = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert retrieval_ranks(images, captions).t2i.tolist() == [0, 0, 1]
