"""Swapped prediction: every pair of views of SwAV and DINO, written out."""

import pytest
import torch

from fullrank import losses

N, K = 5, 7


def logits(views: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(views, N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cross_entropy(target: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    return torch.stack([-(t * p.log_softmax(0)).sum() for t, p in zip(target, prediction, strict=True)]).mean()


@pytest.mark.parametrize("assigned", [(0, 1), (1,), (2, 0, 1)])
def test_swav_is_the_mean_over_views_with_codes(assigned):
    scores = logits(4)
    codes = logits(len(assigned), seed=1).softmax(-1)
    each = [
        sum(cross_entropy(code, scores[v] / 0.2) for v in range(4) if v != view) / 3
        for view, code in zip(assigned, codes, strict=True)
    ]
    terms = losses.swav(scores.flatten(0, 1), codes=codes, assigned=assigned, temperature=0.2)
    torch.testing.assert_close(terms["loss"], torch.stack(each).mean())
    entropies = -(codes * codes.log()).sum(-1).mean()
    torch.testing.assert_close(terms["entropy"], entropies)


@pytest.mark.parametrize("views", [2, 5])
def test_dino_is_the_mean_over_pairs_of_different_views(views):
    student, teacher, center = logits(views), logits(2, seed=1), logits(1, seed=2)[0, 0]
    targets = ((teacher - center) / 0.04).softmax(-1)
    pairs = [cross_entropy(targets[a], student[v] / 0.1) for a in range(2) for v in range(views) if v != a]
    terms = losses.dino(student.flatten(0, 1), teacher=teacher, center=center)
    torch.testing.assert_close(terms["loss"], torch.stack(pairs).mean())


def test_dino_gives_the_teacher_no_gradient():
    student, teacher = logits(2).flatten(0, 1).requires_grad_(), logits(2, seed=1).requires_grad_()
    losses.dino(student, teacher=teacher, center=torch.zeros(K, dtype=torch.float64))["loss"].backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_center_is_a_moving_mean_of_raw_logits():
    teacher, center = logits(2), torch.ones(K, dtype=torch.float64)
    expected = 0.9 * center + 0.1 * torch.cat([*teacher]).mean(0)
    torch.testing.assert_close(losses.dino_center(center, teacher), expected)
    assert torch.equal(losses.dino_center(center, teacher, momentum=1.0), center)
