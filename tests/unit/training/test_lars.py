"""LARS against a transcription of its equations, parameter by parameter, in float64."""

import io

import pytest
import torch
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.training.lars import BLOCK, LARS

SHAPES = {
    "matrix": (6, 5),
    "several blocks": (3, BLOCK + 17),
    "convolution": (4, 3, 3, 3),
    "bias": (7,),
    "scalar": (),
}


def reference_step(
    p: Tensor, grad: Tensor, mu: Tensor, lr: float, *, momentum=0.9, decay=1e-6, eta=1e-3, excluded: bool
) -> tuple[Tensor, Tensor]:
    update = grad if excluded else grad + decay * p
    lengths = float(p.square().sum().sqrt()), float(update.square().sum().sqrt())
    if not excluded and min(lengths) > 0:
        update = update * (eta * lengths[0] / lengths[1])
    mu = momentum * mu + update
    return p - lr * mu, mu


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def run_both(start: Tensor, grads: list[Tensor], lrs: list[float], *, excluded: bool = False, **options) -> float:
    """Largest relative error of parameters and momentum over all steps."""
    p = nn.Parameter(start)
    optimizer = LARS([p], lr=lrs[0], **options)
    numbers = {"momentum": options.get("momentum", 0.9), "decay": options.get("weight_decay", 1e-6)}
    theirs, mu, worst = start.double().clone(), torch.zeros_like(start, dtype=torch.float64), 0.0
    for grad, lr in zip(grads, lrs, strict=True):
        p.grad, optimizer.param_groups[0]["lr"] = grad, lr
        optimizer.step()
        theirs, mu = reference_step(theirs, grad.double(), mu, lr, excluded=excluded, **numbers)
        buffer = optimizer.state[p]["momentum_buffer"]
        worst = max(worst, relative_error(p.detach(), theirs), relative_error(buffer, mu))
    return worst


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_equations(name: str, dtype: torch.dtype, limit: float) -> None:
    shape = SHAPES[name]
    grads = [random(shape, seed, dtype) * 10.0 ** (seed - 4) for seed in range(1, 5)]
    error = run_both(random(shape, 0, dtype), grads, [0.0, 0.5, 3.0, 0.7], excluded=name == "bias", weight_decay=0.1)
    assert error < limit


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_momentum_and_decay(momentum: float, weight_decay: float) -> None:
    grads = [random((6, 5), seed) for seed in (1, 2)]
    p = nn.Parameter(random((6, 5), 0))
    optimizer = LARS([p], lr=2.0, momentum=momentum, weight_decay=weight_decay)
    theirs, mu = p.detach().double(), torch.zeros(6, 5, dtype=torch.float64)
    for grad in grads:
        p.grad = grad
        optimizer.step()
        theirs, mu = reference_step(
            theirs, grad.double(), mu, 2.0, momentum=momentum, decay=weight_decay, excluded=False
        )
    assert relative_error(p.detach(), theirs) < 1e-6


def test_one_dimensional_parameters_by_flag() -> None:
    start, grad = random((9,), 0, torch.float64), random((9,), 1, torch.float64)
    for decay_1d in (False, True):
        for adapt_1d in (False, True):
            p = nn.Parameter(start.clone())
            p.grad = grad.clone()
            LARS([p], lr=1.0, weight_decay=0.1, decay_1d=decay_1d, adapt_1d=adapt_1d).step()
            update = grad + 0.1 * start if decay_1d else grad
            update = update * 1e-3 * start.norm() / update.norm() if adapt_1d else update
            torch.testing.assert_close(p.detach(), start - update, rtol=1e-12, atol=0)


def test_groups_have_their_own_numbers() -> None:
    weight, bias = nn.Parameter(random((3, 4), 0)), nn.Parameter(random((3,), 1))
    start = bias.detach().clone()
    weight.grad, bias.grad = random((3, 4), 2), random((3,), 3)
    optimizer = LARS([{"params": [weight], "lr": 0.0}, {"params": [bias], "lr": 0.25}], lr=1.0)
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight.detach(), before)
    torch.testing.assert_close(bias.detach(), start - 0.25 * bias.grad)


def test_gradients_far_longer_than_the_parameter_keep_their_digits() -> None:
    start = random((50, 40), 0) * 1e-4
    assert run_both(start, [random((50, 40), seed) * 1e6 for seed in (1, 2)], [1.0, 1.0]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_norms_leave_the_update_unscaled(dtype: torch.dtype) -> None:
    zero = nn.Parameter(torch.zeros(3, 4, dtype=dtype))
    still = nn.Parameter(random((3, 4), 0, dtype))
    start = still.detach().clone()
    zero.grad, still.grad = random((3, 4), 1, dtype), torch.zeros(3, 4, dtype=dtype)
    LARS([zero, still], lr=0.5, weight_decay=0.0).step()
    torch.testing.assert_close(zero.detach(), -0.5 * zero.grad)
    assert torch.equal(still.detach(), start)


def test_zero_gradient_decays_and_none_does_nothing() -> None:
    p, absent = nn.Parameter(random((4, 4), 0)), nn.Parameter(random((4, 4), 1))
    start, length = p.detach().clone(), p.detach().norm()
    kept = absent.detach().clone()
    optimizer = LARS([p, absent], lr=1.0, weight_decay=0.1)
    p.grad = torch.zeros(4, 4)
    optimizer.step()
    # The update is the direction of p, as long as eta |p|.
    torch.testing.assert_close((p.detach() - start).norm(), 1e-3 * length, rtol=1e-4, atol=0)
    assert torch.equal(absent.detach(), kept)
    assert absent not in optimizer.state


@pytest.mark.parametrize("gradient_format", [torch.contiguous_format, torch.channels_last])
def test_memory_layouts(gradient_format: torch.memory_format) -> None:
    start = random((4, 3, 5, 5), 0).to(memory_format=torch.channels_last)
    grads = [random((4, 3, 5, 5), seed).to(memory_format=gradient_format) for seed in (1, 2, 3)]
    assert run_both(start, grads, [1.0, 1.0, 1.0]) < 1e-6


@pytest.mark.parametrize("all_strided", [False, True])
def test_parameter_that_is_a_strided_view(all_strided: bool) -> None:
    wide = random((6, 10), 0)
    untouched = wide[:, 1::2].clone()
    p = nn.Parameter(wide[:, ::2])
    theirs = p.detach().double().clone()
    p.grad = random((6, 10), 1)[:, ::2] if all_strided else random((6, 5), 1)
    optimizer = LARS([p], lr=1.0)
    if all_strided:
        optimizer.state[p]["momentum_buffer"] = torch.zeros(6, 10)[:, ::2]
    optimizer.step()
    theirs, _ = reference_step(theirs, p.grad.double(), torch.zeros_like(theirs), 1.0, excluded=False)
    assert relative_error(p.detach(), theirs) < 1e-6
    assert torch.equal(wide[:, 1::2], untouched)


def test_momentum_loaded_in_another_layout() -> None:
    start = random((4, 3, 5, 5), 0).to(memory_format=torch.channels_last)
    steps = [random((4, 3, 5, 5), seed).to(memory_format=torch.channels_last) for seed in (1, 2)]
    p = nn.Parameter(start.clone(memory_format=torch.preserve_format))
    optimizer = LARS([p], lr=1.0)
    theirs, mu = start.double(), torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    for grad in steps:
        p.grad = grad
        optimizer.step()
        optimizer.state[p]["momentum_buffer"] = optimizer.state[p]["momentum_buffer"].contiguous()
        theirs, mu = reference_step(theirs, grad.double(), mu, 1.0, excluded=False)
    assert relative_error(p.detach(), theirs) < 1e-6


def test_closure_runs_with_gradients_and_its_loss_comes_back() -> None:
    p = nn.Parameter(random((3, 4), 0))
    start = p.detach().clone()
    optimizer = LARS([p], lr=1.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss == start.square().sum()
    torch.testing.assert_close(p.detach(), start * (1 - 1e-3), rtol=1e-6, atol=0)


def test_saved_without_code_and_resumed_to_the_bit() -> None:
    def steps(p: nn.Parameter, optimizer: LARS, seeds: range) -> None:
        for seed in seeds:
            p.grad = random((40, 30), seed)
            optimizer.step()

    whole = nn.Parameter(random((40, 30), 0))
    optimizer = LARS([whole], lr=1.0)
    steps(whole, optimizer, range(1, 4))
    file = io.BytesIO()
    torch.save({"p": whole.detach(), "optimizer": optimizer.state_dict()}, file)
    steps(whole, optimizer, range(4, 7))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = nn.Parameter(saved["p"])
    optimizer = LARS([resumed], lr=99.0)
    optimizer.load_state_dict(saved["optimizer"])
    steps(resumed, optimizer, range(4, 7))
    assert torch.equal(resumed.detach(), whole.detach())


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": float("nan")}, {"lr": 1.0, "momentum": -0.1}])
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(reversed(wrong))):
        LARS([nn.Parameter(torch.zeros(2, 2))], **wrong)
