"""What every loss demands of its embeddings, the precision it computes in, and what it refuses to return."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import torch
from torch import Tensor

from fullrank.distributed import world_size
from fullrank.errors import InputError, NotFinite

Terms = dict[str, Tensor]
P = ParamSpec("P")


def on_embeddings(function: Callable[P, Terms]) -> Callable[P, Terms]:
    """Decorator of a loss: its positional arguments must be usable embeddings, its `loss` must be finite.

    The loss runs in full precision. Whether the numbers are finite is read off the result, which costs one
    scalar instead of a pass over the embeddings; compiled code skips it, since the branch would split the graph.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Terms:
        given = dict(zip(names, args, strict=False))
        given.update((name, kwargs[name]) for name in names if name in kwargs)
        if len(given) < len(names):
            return function(*args, **kwargs)  # Python's own error
        for name, embedding in given.items():
            _check(f"{function.__name__}: {name}", embedding)
        embeddings: dict[str, Tensor] = given  # type: ignore[assignment]
        _check_same_shape(function.__name__, embeddings)
        with full_precision(next(iter(embeddings.values()))):
            terms = function(*args, **kwargs)
        if not torch.compiler.is_compiling() and not math.isfinite(terms["loss"].item()):
            raise _not_finite(function.__name__, terms["loss"], embeddings)
        return terms

    return checked


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the backward pass of a function: in full precision, and refused where autograd records it.

    What is saved for it are constants to autograd, so a second derivative would be silently incomplete.
    """

    @functools.wraps(backward)
    def guarded(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise InputError("this loss has first derivatives only: call backward without create_graph=True")
        with torch.no_grad(), full_precision(gradients[0]):
            return backward(ctx, *gradients)

    return guarded


def full_precision(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off on the device of `like`, and no TF32 or bfloat16 inside the products of float32.

    Rounded products would be rounded statistics, and where n < d they are also subtracted from each other.
    Compiled code keeps the program's setting of TF32, which a graph cannot change.
    """
    kind = like.device.type
    if torch.compiler.is_compiling():
        return torch.autocast(kind, enabled=False)
    reduced = any(getattr(backend, attribute) in ("tf32", "bf16", True) for backend, attribute, _ in _PRODUCTS)
    if reduced or torch.is_autocast_enabled(kind):
        return _full_precision(kind)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _full_precision(kind: str) -> Iterator[None]:
    before = [getattr(backend, attribute) for backend, attribute, _ in _PRODUCTS]
    for backend, attribute, exact in _PRODUCTS:
        setattr(backend, attribute, exact)
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        for (backend, attribute, _), value in zip(_PRODUCTS, before, strict=True):
            setattr(backend, attribute, value)


# Where torch keeps the precision of float32 products, and the value that is float32.
_PRODUCTS: tuple[tuple[Any, str, str | bool], ...]
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
    _PRODUCTS = (
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (torch.backends.mkldnn.matmul, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
    )
else:  # torch before 2.9
    _PRODUCTS = ((torch.backends.cuda.matmul, "allow_tf32", False),)


def at_least_float32(z: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def _check(what: str, embedding: object) -> None:
    if not isinstance(embedding, Tensor):
        raise InputError(f"{what} is a {type(embedding).__name__}, expected a tensor (n, d): use torch.as_tensor")
    shape = tuple(embedding.shape)
    if not embedding.dtype.is_floating_point:
        raise InputError(f"{what} of shape {shape} is {embedding.dtype}, expected floating point: use .float()")
    if embedding.ndim != 2 or embedding.shape[1] == 0:
        raise InputError(f"{what} has shape {shape}, expected (n, d): flatten each sample to one vector")
    if embedding.shape[0] * world_size() < 2:
        raise InputError(f"{what} has shape {shape}, expected at least 2 rows: statistics need a larger batch")


def _check_same_shape(loss: str, embeddings: dict[str, Tensor]) -> None:
    if len({embedding.shape for embedding in embeddings.values()}) > 1:
        shapes = " and ".join(f"{name} {tuple(embedding.shape)}" for name, embedding in embeddings.items())
        raise InputError(f"{loss}: {shapes} differ, expected one shape: row i of each must be the same sample")


def _not_finite(loss: str, value: Tensor, embeddings: dict[str, Tensor]) -> NotFinite:
    shape = tuple(next(iter(embeddings.values())).shape)
    counts = {name: int((~torch.isfinite(embedding)).sum()) for name, embedding in embeddings.items()}
    largest = max(float(embedding.detach().abs().max()) for embedding in embeddings.values())
    found = [f"{name} {shape} holds {count} NaN or infinite values" for name, count in counts.items() if count]
    if not found:
        found = [f"embeddings {shape} are finite, up to {largest:.3g}, too large or not so on another process"]
    advice = "lower the learning rate, or look at the first layer that gives them"
    return NotFinite(f"{loss}: the loss is {value.item()}: {', '.join(found)}; {advice}")
