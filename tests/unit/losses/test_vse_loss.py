"""The hinge of VSE++ against a loop over pairs, and what its constants mean."""

import pytest
import torch

from fullrank import losses
from fullrank.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, CAPTIONS = (torch.randn(7, 5, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


def score(image, caption, measure):
    if measure == "cosine":
        return (image * caption).sum()
    return -(caption - image).clamp_min(0).square().sum().sqrt()


@pytest.mark.parametrize("measure", ["cosine", "order"])
@pytest.mark.parametrize("max_violation", [True, False])
@pytest.mark.parametrize("margin", [0.05, 0.7])
def test_a_loop_over_pairs(measure, max_violation, margin):
    images, captions = IMAGES.clone().requires_grad_(), CAPTIONS.clone().requires_grad_()
    others = [x.detach().clone().requires_grad_() for x in (images, captions)]
    terms = losses.vse(images, captions, margin=margin, max_violation=max_violation, measure=measure)
    s = [[score(image, caption, measure) for caption in others[1]] for image in others[0]]
    gather = max if max_violation else sum
    n = len(images)
    by_image = sum(gather([(margin + s[i][j] - s[i][i]).clamp_min(0) for j in range(n) if j != i]) for i in range(n))
    by_caption = sum(gather([(margin + s[i][j] - s[j][j]).clamp_min(0) for i in range(n) if j != i]) for j in range(n))
    torch.testing.assert_close(terms["image_to_text"], by_image)
    torch.testing.assert_close(terms["text_to_image"], by_caption)
    torch.testing.assert_close(terms["loss"], by_image + by_caption)
    terms["loss"].backward()
    (by_image + by_caption).backward()
    for own, other in zip((images, captions), others, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_pairs_that_fit_cost_nothing():
    rows = torch.eye(4)
    assert losses.vse(rows, rows, margin=0.9)["loss"] == 0
    assert losses.vse(rows, rows, margin=1.5)["loss"] == pytest.approx(2 * 4 * 0.5)


def test_a_collapsed_embedding_costs_the_margin_on_both_sides():
    rows = torch.ones(6, 3)
    assert losses.vse(rows, rows)["loss"] == pytest.approx(2 * 6 * 0.2)
    assert losses.vse(rows, rows, max_violation=False)["loss"] == pytest.approx(2 * 6 * 5 * 0.2)


def test_the_order_measure_has_a_gradient_where_captions_exceed_nothing():
    rows = torch.ones(3, 2, requires_grad=True)
    losses.vse(rows, torch.zeros(3, 2), measure="order")["loss"].backward()
    assert torch.isfinite(rows.grad).all()


def test_half_precision_is_computed_in_float32():
    terms = losses.vse(IMAGES.bfloat16(), CAPTIONS.bfloat16())
    assert terms["loss"].dtype == torch.float32


def test_another_measure_is_refused():
    with pytest.raises(InputError, match=r"unknown measure 'ordre': did you mean 'order'"):
        losses.vse(IMAGES, CAPTIONS, measure="ordre")
