"""Batch norm over the global batch, on any device.

`torch.nn.SyncBatchNorm` works on GPUs only, so runs on several CPU processes could never equal one process with the
joint batch. These layers take over on the CPU; GPUs keep torch's.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fullrank import distributed

M = TypeVar("M", bound=nn.Module)


class GlobalBatchNorm(_BatchNorm):
    """Batch norm whose statistics are those of all processes; input (n, c) or (n, c, *)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm got {tuple(input.shape)}: expected (n, c) or (n, c, *)")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all processes in training, with the running ones otherwise."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        own = input.new_full((), input.numel() // input.shape[1], dtype=torch.float64)
        count = int(distributed.all_reduce_sum(own))  # detectors have regions and borders of different number
        mean = distributed.all_reduce_sum(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = distributed.all_reduce_sum(centred.square().sum(axes)) / count  # biased, as torch normalises
        self._track(mean.detach(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        normalised = centred * scale.view(shape)
        return normalised if self.bias is None else normalised + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running averages as torch keeps them: the stored variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), rate)


class GlobalBatchNormAct(GlobalBatchNorm):
    """The same for timm's layers that join batch norm, dropout and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, then drop and activate."""
        return self.act(self.drop(super().forward(input)))


def synchronise_batch_norm(model: M, device: str = "cpu") -> M:
    """Every batch norm layer inside `model` over the global batch; names of parameters and buffers stay."""
    if device == "cuda":
        return convert_sync_batchnorm(model)  # in place for everything but a model that is itself such a layer
    for module in model.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = GlobalBatchNormAct  # type: ignore[assignment]
        elif isinstance(module, _BatchNorm):
            module.__class__ = GlobalBatchNorm
    return model
