"""What all losses share: which inputs they refuse, the precision they compute in, compilation, cost."""

from __future__ import annotations

import math
import shutil

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fullrank import losses
from fullrank.errors import InputError
from tests.unit.losses.loss_formulas import barlow_terms, relative_error, vicreg_code_terms, views

PAIRS = [losses.vicreg, losses.barlow_twins]
SHAPES = [(8, 20), (20, 8)]


def vicreg_reference(x, y):
    s, v, c = vicreg_code_terms(x, y)
    return 25 * s + 25 * v + c


def barlow_reference(x, y):
    on_diagonal, off_diagonal = barlow_terms(x, y)
    return on_diagonal + 0.0051 * off_diagonal


REFERENCES = {losses.vicreg: vicreg_reference, losses.barlow_twins: barlow_reference}


def value_and_gradients(loss, x, y):
    value = loss(x, y)
    value = value["loss"] if isinstance(value, dict) else value
    return value.detach(), *torch.autograd.grad(value, (x, y))


# --- what is refused


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(1, 5), torch.zeros(1, 5), r"x has shape \(1, 5\), expected at least 2 rows"),
        (torch.zeros(0, 5), torch.zeros(0, 5), r"x has shape \(0, 5\), expected at least 2 rows"),
        (torch.zeros(4, 0), torch.zeros(4, 0), r"x has shape \(4, 0\), expected \(n, d\)"),
        (torch.zeros(4, 5), torch.zeros(4, 6), r"x \(4, 5\) and y \(4, 6\) differ"),
        (torch.zeros(4, 5), torch.zeros(3, 5), r"x \(4, 5\) and y \(3, 5\) differ"),
        (torch.zeros(4), torch.zeros(4), r"x has shape \(4,\), expected \(n, d\)"),
        (torch.zeros(4, 5), torch.zeros(4, 5, 2), r"y has shape \(4, 5, 2\), expected \(n, d\)"),
        (torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 5), r"x of shape \(4, 5\) is torch.int64"),
        (torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.bool), r"y of shape \(4, 5\) is torch.bool"),
        (np.zeros((4, 5)), torch.zeros(4, 5), "x is a ndarray, expected a tensor"),
    ],
)
def test_unusable_embeddings_are_named(loss, x, y, message):
    with pytest.raises(InputError, match=f"{loss.__name__}.*{message}") as error:
        loss(x, y)
    assert "\n" not in str(error.value)


def test_unusable_embeddings_are_named_when_passed_by_keyword():
    with pytest.raises(InputError, match=r"vicreg: y has shape \(4,\)"):
        losses.vicreg(y=torch.zeros(4), x=torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"variance_covariance: z has shape \(1, 5\)"):
        losses.variance_covariance(z=torch.zeros(1, 5))


@pytest.mark.parametrize("loss", PAIRS)
def test_missing_embeddings_are_an_ordinary_type_error(loss):
    with pytest.raises(TypeError, match="missing"):
        loss()
    with pytest.raises(TypeError, match="missing"):
        loss(y=torch.zeros(4, 5))


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("view", ["x", "y"])
def test_nan_and_infinity_are_refused(loss, shape, bad, view):
    pair = {"x": torch.randn(shape), "y": torch.randn(shape)}
    pair[view][3, 2] = bad
    with pytest.raises(InputError, match=rf"the loss is nan: {view} \({shape[0]}, {shape[1]}\) holds 1 NaN or inf"):
        loss(**pair)


def test_nan_is_refused_though_the_weight_of_its_term_is_zero():
    z = torch.randn(8, 20)
    z[0, 0] = float("nan")
    with pytest.raises(InputError, match="1 NaN"):
        losses.variance_covariance(z, variance=0.0, covariance=0.0)


def test_overflow_of_finite_values_says_so():
    with pytest.raises(InputError, match=r"\(4, 5\) are finite, up to 1e\+30, too large"):
        losses.vicreg(torch.eye(4, 5) * 1e30, torch.zeros(4, 5))


@pytest.mark.parametrize("loss", PAIRS)
def test_unknown_reduction_names_the_nearest(loss):
    with pytest.raises(InputError, match="unknown reduction 'papr': did you mean 'paper'"):
        loss(torch.randn(4, 5), torch.randn(4, 5), reduction="papr")


# --- precision


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16)])
def test_float32_is_within_rounding_of_float64(loss, shape):
    x, y = views(*shape, dtype=torch.float32)
    exact = value_and_gradients(REFERENCES[loss], *(z.detach().double().requires_grad_() for z in (x, y)))
    ours = value_and_gradients(loss, x, y)
    assert [value.dtype for value in ours] == [torch.float32] * 3
    assert max(relative_error(one, other) for one, other in zip(ours, exact, strict=True)) < 5e-6


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("std", [1.0, 8.0, 60.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(256, 512), (512, 256)])
def test_half_precision_embeddings_of_any_scale(loss, std, dtype, shape):
    """The same rounded numbers, in float64 and as they are: only the result is rounded to half precision."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(shape, generator=generator)
    x, y = ((std * (shared + 0.5 * torch.randn(shape, generator=generator))).to(dtype) for _ in range(2))
    exact = value_and_gradients(plain_product(loss), *(z.double().requires_grad_() for z in (x, y)))
    largest = max(gradient.abs().max().item() for gradient in exact[1:])
    scale = 2.0 ** math.floor(math.log2(100 / largest))  # as a gradient scaler does: float16 has a narrow range
    terms = loss(x.requires_grad_(), y.requires_grad_())
    gradients = torch.autograd.grad(terms["loss"] * scale, (x, y))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert [gradient.dtype for gradient in gradients] == [dtype] * 2
    assert relative_error(terms["loss"], exact[0]) < 1e-5
    limit = 1e-3 if dtype == torch.float16 else 4e-3  # half a unit in the last place is 2^-11 or 2^-8
    for ours, theirs in zip(gradients, exact[1:], strict=True):
        assert relative_error(ours.double() / scale, theirs) < limit


@pytest.mark.parametrize("std", [8.0, 60.0])
def test_vicreg_in_float16_without_a_gradient_scaler(std):
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(256, 512, generator=generator)
    x, y = ((std * (shared + 0.5 * torch.randn(256, 512, generator=generator))).half() for _ in range(2))
    exact = value_and_gradients(plain_product(losses.vicreg), *(z.double().requires_grad_() for z in (x, y)))
    with torch.autocast("cpu", dtype=torch.float16):
        ours = value_and_gradients(losses.vicreg, x.requires_grad_(), y.requires_grad_())
    assert max(relative_error(one, other) for one, other in zip(ours, exact, strict=True)) < 1e-3


def plain_product(loss):
    """The reference with matrix products instead of sums over samples: the same formula, fast enough at 256 x 512."""

    def squares(matrix):
        return (matrix - torch.diag(torch.diagonal(matrix))).square().sum()

    def vicreg(x, y):
        value = 25 * (x - y).square().mean()
        for z in (x, y):
            centred = z - z.mean(0)
            matrix = centred.T @ centred / (len(z) - 1)
            std = (torch.diagonal(matrix) + 1e-4).sqrt()
            value = value + 12.5 * torch.relu(1 - std).mean() + squares(matrix) / z.shape[1]
        return value

    def barlow(x, y):
        a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (x, y))
        matrix = a.T @ b / len(a)
        return (torch.diagonal(matrix) - 1).square().sum() + 0.0051 * squares(matrix)

    return {losses.vicreg: vicreg, losses.barlow_twins: barlow}[loss]


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_autocast_changes_nothing(loss, dtype, shape):
    x, y = views(*shape, dtype=torch.float32)
    outside = value_and_gradients(loss, x, y)
    with torch.autocast("cpu", dtype=dtype):
        inside = value_and_gradients(loss, x, y)
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(inside, outside, strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def reduced_products():
    """Float32 products in bfloat16 where the processor can, and in TF32 on CUDA, for the rest of the program."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
def test_reduced_float32_products_change_nothing(loss, shape, request):
    x, y = views(*shape, dtype=torch.float32)
    expected = value_and_gradients(loss, x, y)
    request.getfixturevalue("reduced_products")
    for one, other in zip(value_and_gradients(loss, x, y), expected, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError):
        loss(x * float("nan"), y)
    assert torch.backends.cuda.matmul.allow_tf32  # as the program had set it, also after an error


def test_views_of_different_precision():
    x, y = views(8, 20)
    terms = losses.vicreg(x, y.to(torch.float32))
    assert terms["loss"].dtype == torch.float64
    torch.testing.assert_close(terms["loss"], losses.vicreg(x, y)["loss"], rtol=1e-6, atol=0)


# --- compilation


@pytest.fixture
def without_shape_checks(monkeypatch):
    """The run-time shape checks of the tests cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch._dynamo.reset()


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("loss", PAIRS)
def test_compiles_to_one_graph_with_the_same_numbers(loss):
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for shape in SHAPES:
        x, y = views(*shape)
        expected = value_and_gradients(loss, x, y)
        for one, other in zip(value_and_gradients(compiled, x, y), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler needs g++")
def test_default_compiler_gives_the_same_numbers_under_autocast():
    x, y = views(20, 8, dtype=torch.float32)
    expected = value_and_gradients(losses.vicreg, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled = value_and_gradients(torch.compile(losses.vicreg, fullgraph=True), x, y)
    for one, other in zip(compiled, expected, strict=True):
        assert relative_error(one, other) < 1e-5


# --- cost


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def product_in_place(added, left, right, **_):
    return 2 * left[0] * left[1] * right[1]


def count_operations(loss, x, y):
    """Two operations per multiply-add of every matrix product, forward and backward."""
    in_place = {torch.ops.aten.addmm_: product_in_place}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        loss(x, y)["loss"].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("n", "d"), [(8, 100), (100, 8)])
def test_vicreg_takes_two_products_a_view_through_the_smaller_side(n, d):
    assert count_operations(losses.vicreg, *views(n, d)) == 2 * 4 * n * d * min(n, d)


@pytest.mark.parametrize(("n", "d", "products"), [(8, 100, 4), (100, 8, 3)])
def test_barlow_twins_takes_four_products_of_n_or_three_of_d(n, d, products):
    assert count_operations(losses.barlow_twins, *views(n, d)) == products * 2 * n * d * min(n, d)


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_columns_stored_one_after_the_other(loss, shape):
    x, y = views(*shape)
    expected = value_and_gradients(loss, x, y)
    transposed = [z.detach().T.contiguous().T.requires_grad_() for z in (x, y)]
    for one, other in zip(value_and_gradients(loss, *transposed), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("loss", PAIRS)
def test_no_tensor_is_larger_than_the_embeddings(loss):
    x, y = views(8, 100)
    with LargestTensor() as largest:
        loss(x, y)["loss"].backward()
    assert largest.elements == 8 * 100


@pytest.mark.parametrize("loss", PAIRS)
def test_backward_twice_gives_the_gradient_twice(loss):
    """Nothing that is kept for the backward pass may be overwritten by it."""
    for shape in SHAPES:
        x, y = views(*shape)
        total = loss(x, y)["loss"]
        total.backward(retain_graph=True)
        once = x.grad.clone()
        total.backward()
        torch.testing.assert_close(x.grad, 2 * once, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_second_derivatives_are_refused_instead_of_wrong(loss, shape):
    with pytest.raises(InputError, match="first derivatives only"):
        loss(*views(*shape))["loss"].backward(create_graph=True)
