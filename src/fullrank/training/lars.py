"""LARS, layer-wise adaptive rate scaling, as in the code of VICReg and Barlow Twins.

Per parameter p with gradient g:

    u  = g + weight_decay * p            1-D parameters: u = g
    u  = u * eta * |p| / |u|             1-D parameters: unscaled; factor 1 where |p| = 0 or |u| = 0
    mu = momentum * mu + u
    p  = p - lr * mu

Code: facebookresearch/vicreg main_vicreg.py and facebookresearch/barlowtwins main.py, class LARS; SimCLR's variant,
google-research/simclr lars_optimizer.py; SwAV's, NVIDIA/apex parallel/LARC.py.
Paper: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from fullrank.errors import InputError

BLOCK = 1 << 16  # elements: gradient, parameter and their sum then stay in the cache of one core
SMALLEST_FUSED_RATIO = 1e-8  # below, 1 - (1 - ratio) loses more digits than float32 has


class LARS(torch.optim.Optimizer):
    """LARS with the arithmetic of VICReg's and Barlow Twins' code; grad None leaves a parameter untouched.

    Args:
        params: parameters or parameter groups; every option below can differ between groups.
        lr: learning rate. It acts on the accumulated momentum, so a schedule takes effect at once.
        momentum: decay of the momentum buffer.
        weight_decay: added to the gradient before it is scaled.
        eta: trust coefficient, the length of an update in units of the parameter's own norm.
        decay_1d: also decay parameters with exactly one dimension (biases, normalisation).
        adapt_1d: also scale their updates. Parameters with no dimension are always decayed and scaled.
        lr_in_momentum: `mu = momentum * mu + lr * u, p = p - mu`, as in SimCLR: a schedule takes effect slowly.
        sum_of_norms: divide by |g| + weight_decay * |p| + 1e-8, as the paper and LARC do; where |p| or |g| is 0, u = g.

    Raises `InputError` where a number lies outside its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 1e-3,
        decay_1d: bool = False,
        adapt_1d: bool = False,
        lr_in_momentum: bool = False,
        sum_of_norms: bool = False,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        for name, value in numbers.items():
            if not value >= 0.0:
                raise InputError(f"LARS got {name}={value}: expected a number of at least 0")
        switches = {"decay_1d": decay_1d, "adapt_1d": adapt_1d}
        variant = {"lr_in_momentum": lr_in_momentum, "sum_of_norms": sum_of_norms}
        super().__init__(params, {**numbers, **switches, **variant})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            vectors = [p for p in trained if p.ndim == 1]
            others = [p for p in trained if p.ndim != 1]
            self._update(group, vectors, decay=group["decay_1d"], adapt=group["adapt_1d"])
            self._update(group, others, decay=True, adapt=True)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], *, decay: bool, adapt: bool) -> None:
        weight_decay = group["weight_decay"] if decay else 0.0
        rest = [p for p in params if not self._fused(group, p, weight_decay, adapt)]
        for same in _by_device_and_dtype(rest):
            self._foreach(group, same, weight_decay, adapt)

    def _fused(self, group: dict[str, Any], p: Tensor, weight_decay: float, adapt: bool) -> bool:
        """Update a parameter on the CPU in two passes over memory; False where that is not possible.

        `mu = momentum * mu + ratio * (g + weight_decay * p)` is SGD whose dampening is 1 - ratio, and for
        SGD there is a kernel that reads and writes everything once.
        """
        if group["lr_in_momentum"] or group["sum_of_norms"]:
            return False
        if group["momentum"] == 0.0 or not _fits_fused_kernel(p, self._buffer(p)):
            return False  # without momentum there is no dampening either
        grad, ratio = _grad(p), 1.0
        if adapt:
            param_norm, update_norm = _blocked_norms(p, grad, weight_decay)
            if param_norm > 0.0 and update_norm > 0.0:
                ratio = group["eta"] * param_norm / update_norm
        if not ratio > SMALLEST_FUSED_RATIO:
            return False
        buffers = [self._buffer(p)]
        _sgd(group, [p], [grad], buffers, fused=True, weight_decay=weight_decay, dampening=1.0 - ratio)
        return True

    def _foreach(self, group: dict[str, Any], params: list[Tensor], weight_decay: float, adapt: bool) -> None:
        """Update parameters of one device and dtype together, without reading a number back from it."""
        grads = [_grad(p) for p in params]
        updates = grads if weight_decay == 0.0 else list(torch._foreach_add(grads, params, alpha=weight_decay))
        if adapt and group["sum_of_norms"]:
            updates = _larc(group, params, grads, updates, weight_decay)
        elif adapt:
            param_norms, update_norms = _norms(params), _norms(updates)
            both = (param_norms > 0) & (update_norms > 0)
            ratios = torch.where(both, group["eta"] * param_norms / update_norms, 1.0)
            updates = list(torch._foreach_mul(updates, list(ratios.unbind())))
        buffers = [self._buffer(p) for p in params]
        if group["lr_in_momentum"]:
            _sgd({**group, "lr": 1.0}, params, list(torch._foreach_mul(updates, group["lr"])), buffers, foreach=True)
        else:
            _sgd(group, params, updates, buffers, foreach=True)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


def _sgd(
    group: dict[str, Any],
    params: list[Tensor],
    updates: list[Tensor],
    buffers: list[Tensor],
    *,
    foreach: bool = False,
    fused: bool = False,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
) -> None:
    """`mu = momentum * mu + (1 - dampening) * (u + weight_decay * p); p = p - lr * mu`."""
    sgd(
        params,
        updates,
        list[Tensor | None](buffers),
        foreach=foreach,
        fused=fused,
        lr=group["lr"],
        momentum=group["momentum"],
        weight_decay=weight_decay,
        dampening=dampening,
        nesterov=False,
        maximize=False,
    )


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _larc(
    group: dict[str, Any], params: list[Tensor], grads: list[Tensor], decayed: list[Tensor], weight_decay: float
) -> list[Tensor]:
    """The decayed gradients scaled by the paper's ratio; the bare gradient where it or the parameter is zero."""
    param_norms, grad_norms = _norms(params), _norms(grads)
    ratios = group["eta"] * param_norms / (grad_norms + weight_decay * param_norms + 1e-8)
    both = (param_norms > 0) & (grad_norms > 0)
    scaled = torch._foreach_mul(decayed, list(ratios.unbind()))
    return [torch.where(alive, u, g) for alive, u, g in zip(both, scaled, grads, strict=True)]


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def _fits_fused_kernel(p: Tensor, buffer: Tensor) -> bool:
    """The CPU kernel walks three arrays in memory order and does not look at their strides."""
    dense = p.is_contiguous() or (p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last))
    same = p.stride() == _grad(p).stride() == buffer.stride()
    return dense and same and p.device.type == "cpu" and p.dtype == torch.float32


def _blocked_norms(p: Tensor, grad: Tensor, weight_decay: float) -> tuple[float, float]:
    """|p| and |g + weight_decay * p| in one pass over memory, whatever the order of their elements."""
    params = p.as_strided((p.numel(),), (1,)).split(BLOCK)
    grads = grad.as_strided((p.numel(),), (1,)).split(BLOCK)
    updates = torch.empty(min(p.numel(), BLOCK))
    norms = []
    for block, grad_block in zip(params, grads, strict=True):
        update = torch.add(grad_block, block, alpha=weight_decay, out=updates[: block.numel()])
        norms.append(torch.stack([torch.linalg.vector_norm(block), torch.linalg.vector_norm(update)]))
    param_norm, update_norm = torch.linalg.vector_norm(torch.stack(norms), dim=0).tolist()
    return param_norm, update_norm


def _by_device_and_dtype(params: list[Tensor]) -> Iterable[list[Tensor]]:
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in params:
        alike.setdefault((p.device, p.dtype), []).append(p)
    return alike.values()
