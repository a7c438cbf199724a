"""OBoW's loss beside its formula, and what it refuses."""

import pytest
import torch

from fullrank import losses
from fullrank.errors import InputError


def bags_of(n, words):
    return torch.randn(n, words, dtype=torch.float64).softmax(1)


def test_crops_of_an_image_share_its_bag():
    torch.manual_seed(0)
    bags = [bags_of(2, 5), bags_of(2, 7)]
    logits = {"large": [torch.randn(2, w, dtype=torch.float64) for w in (5, 7)]}
    logits["small"] = [torch.randn(6, w, dtype=torch.float64) for w in (5, 7)]
    terms = losses.obow(logits, bags)
    for kind, crops in (("large", 1), ("small", 3)):
        levels = []
        for bag, rows in zip(bags, logits[kind], strict=True):
            each = [
                (bag[i // crops] * (bag[i // crops].log() - (row.exp() / row.exp().sum()).log())).sum()
                for i, row in enumerate(rows)
            ]
            levels.append(torch.stack(each).mean())
        torch.testing.assert_close(terms[kind], torch.stack(levels).mean())
    torch.testing.assert_close(terms["loss"], terms["large"] + terms["small"])


def test_words_without_a_share_cost_nothing():
    bag = torch.tensor([[0.0, 1.0]])
    terms = losses.obow({"crops": [torch.zeros(1, 2)]}, [bag])
    torch.testing.assert_close(terms["loss"], torch.tensor(2.0).log())


@pytest.mark.parametrize(
    "logits", [[torch.zeros(4, 5)], [torch.zeros(4, 5), torch.zeros(4, 6)], [torch.zeros(3, 5), torch.zeros(3, 7)]]
)
def test_logits_that_do_not_belong_to_the_bags_are_an_error(logits):
    with pytest.raises(InputError, match=r"crops have shapes .* bags \[\(2, 5\), \(2, 7\)\]"):
        losses.obow({"crops": logits}, [bags_of(2, 5), bags_of(2, 7)])
