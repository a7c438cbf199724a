"""Contrastive losses beside their formulas, anchor by anchor; precision, compilation and what they refuse."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fullrank import losses
from fullrank.errors import InputError
from fullrank.losses.inputs import _PRODUCTS
from tests.unit.losses.loss_formulas import (
    cosines,
    info_nce_mean,
    log_share,
    nt_xent_mean,
    relative_error,
    term_errors,
    views,
)

SHAPES = [(2, 1), (2, 7), (3, 5), (9, 4)]
PAIRS = [losses.nt_xent, losses.info_nce, losses.directclr]


def value_and_gradients(loss, *rows):
    value = loss(*rows)["loss"]
    return value.detach(), *torch.autograd.grad(value, rows)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_nt_xent_is_the_papers_equation(n, d, temperature):
    x, y = views(n, d)
    mean = nt_xent_mean(x, y, temperature)
    for reduction, factor in (("code", 2), ("paper", 1)):
        terms = losses.nt_xent(x, y, temperature=temperature, reduction=reduction)
        errors = term_errors(terms, {"loss": factor * mean, "nt_xent": mean}, (x, y))
        assert max(errors.values()) < 1e-10, errors


def test_nt_xent_of_inner_products():
    x, y = views(5, 3)
    both = torch.cat([x, y])
    anchors = []
    for i in range(10):
        others = [j for j in range(10) if j != i]
        anchors.append(log_share((both[others] @ both[i]) / 7.0, others.index((i + 5) % 10)))
    loss = losses.nt_xent(x, y, temperature=7.0, normalize=False, reduction="paper")["loss"]
    torch.testing.assert_close(loss, torch.stack(anchors).mean())


def test_nt_xent_with_predictions_has_targets_as_candidates():
    p1, p2 = views(4, 6)
    t1, t2 = views(4, 6, seed=1)
    predictions, targets = torch.cat([p1, p2]), torch.cat([t1, t2])
    scores, anchors = cosines(predictions, targets) / 0.5, []
    for i in range(8):
        others = [j for j in range(8) if j != i]  # the target of the same picture in the same view is no candidate
        anchors.append(log_share(scores[i, others], others.index((i + 4) % 8)))
    mean = torch.stack(anchors).mean()
    terms = losses.nt_xent_predicted(p1, p2, t1, t2, temperature=0.5)
    errors = term_errors(terms, {"loss": 2 * mean, "nt_xent": mean}, (p1, p2, t1, t2))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_info_nce_among_the_other_samples(n, d):
    x, y = views(n, d)
    mean = info_nce_mean(x, y, 0.3)
    errors = term_errors(losses.info_nce(x, y, temperature=0.3), {"loss": mean, "info_nce": mean}, (x, y))
    assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_info_nce_among_a_memory(own, normalize):
    q, k = views(5, 3)
    generator = torch.Generator().manual_seed(3)
    memory = torch.randn(*((5,) if own else ()), 7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    anchors = []
    for i in range(5):
        query, key = (rows[i] / rows[i].norm() if normalize else rows[i] for rows in (q, k))
        rows = memory[i] if own else memory  # taken as they are
        anchors.append(log_share(torch.cat([key[None], rows]) @ query / 2.0, 0))
    mean = torch.stack(anchors).mean()
    terms = losses.info_nce(q, k, negatives=memory, temperature=2.0, normalize=normalize)
    errors = term_errors(terms, {"loss": mean, "info_nce": mean}, (q, k, memory))
    assert max(errors.values()) < 1e-10, errors


def test_directclr_is_the_mean_of_two_directions():
    x, y = views(5, 4)
    one, other = info_nce_mean(x, y, 0.1), info_nce_mean(y, x, 0.1)
    expected = {"loss": (one + other) / 2, "info_nce_12": one, "info_nce_21": other}
    errors = term_errors(losses.directclr(x, y), expected, (x, y))
    assert max(errors.values()) < 1e-10, errors


def test_nnclr_looks_for_predictions_of_the_other_view():
    (n1, n2), (p1, p2) = views(5, 4), views(5, 4, seed=1)
    terms = losses.nnclr(n1, n2, p1, p2)
    for key, anchors, candidates in (("info_nce_12", n1, p2), ("info_nce_21", n2, p1)):
        expected = {key: info_nce_mean(anchors, candidates, 0.1)}
        assert max(term_errors({key: terms[key]}, expected, (anchors, candidates)).values()) < 1e-10
    torch.testing.assert_close(terms["loss"], (terms["info_nce_12"] + terms["info_nce_21"]) / 2)


@pytest.mark.parametrize("loss", PAIRS)
def test_extreme_similarities_stay_finite(loss):
    """In float16 no mask of -1e9 exists, and exp(1 / 0.001) overflows in any precision."""
    x, y = (z.detach().half().requires_grad_() for z in views(6, 4))
    value, by_x, by_y = value_and_gradients(lambda x, y: loss(x, y, temperature=0.001), x, y)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(by_x).all()
    assert torch.isfinite(by_y).all()


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    rows = [z.detach().to(dtype).requires_grad_() for z in views(16, 24)]
    exact = value_and_gradients(loss, *(z.detach().double().requires_grad_() for z in rows))
    with torch.autocast("cpu", torch.bfloat16):
        ours = value_and_gradients(loss, *rows)
    assert relative_error(ours[0], exact[0]) < 1e-5
    assert max(relative_error(one, other) for one, other in zip(ours[1:], exact[1:], strict=True)) < 5e-3


class Products(TorchDispatchMode):
    """In which precision matrix products are made."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm):
            self.settings.append([getattr(backend, name) for backend, name, _ in _PRODUCTS])
        return function(*arguments, **options or {})


@pytest.mark.parametrize("loss", [*PAIRS, lambda x, y: losses.info_nce(x, y, negatives=torch.ones(2, 5, 3))])
def test_products_are_in_full_precision_forward_and_backward(loss):
    """Also where the program takes reduced ones, and on processors that have none."""
    x, y = views(2, 3, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with Products() as products:
            value_and_gradients(loss, x, y)
    finally:
        torch.set_float32_matmul_precision(before)
    exact = [value for _, _, value in _PRODUCTS]
    assert len(products.settings) >= 2
    assert all(setting == exact for setting in products.settings)


@pytest.mark.parametrize("loss", PAIRS)
def test_compiles_to_one_graph_with_the_same_numbers(loss, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # run-time shape checks cannot be traced
    torch._dynamo.reset()
    x, y = views(8, 5)
    expected = value_and_gradients(loss, x, y)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for one, other in zip(value_and_gradients(compiled, x, y), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_what_is_refused():
    x, y = views(4, 5)
    with pytest.raises(InputError, match="unknown reduction 'papr': did you mean 'paper'"):
        losses.nt_xent(x, y, reduction="papr")
    for shape in ((7, 4), (3, 7, 5), (5,), (4, 2, 7, 5)):
        with pytest.raises(InputError, match=r"negatives have shape .*, expected \(k, 5\) or \(4, k, 5\)"):
            losses.info_nce(x, y, negatives=torch.zeros(shape))
    with pytest.raises(InputError, match=r"z2 \(4, 5\) holds 5 NaN"):
        losses.nt_xent(x, y * float("nan") ** torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
