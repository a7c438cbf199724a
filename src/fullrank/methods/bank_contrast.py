"""Embeddings against the rows of a memory bank, by noise-contrastive estimation or by a softmax: PIRL and CMC."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank import losses
from fullrank.networks import Bank


class BankContrast(nn.Module):
    """A bank, the loss against it, and the constant Z of the estimation, which stays as a run's first batch gives it.

    Args:
        bank: with a row for every sample.
        temperature: T.
        softmax: whether it is cross-entropy over the rows in place of the estimation.
        eps: in the denominators of the estimation.
    """

    log_partition: Tensor

    def __init__(self, bank: Bank, temperature: float, softmax: bool, eps: float) -> None:
        super().__init__()
        self.bank, self.temperature, self.softmax, self.eps = bank, temperature, softmax, eps
        self.register_buffer("log_partition", torch.tensor(-torch.inf))  # log Z; Z is 0 until then

    def forward(self, z: Float[Tensor, "n d"], drawn: Int[Tensor, "n candidates"]) -> Float[Tensor, ""]:
        """The loss of embeddings of length 1 against the rows that were drawn for them, the first of them their own."""
        rows, samples, temperature = self.bank.rows[drawn], len(self.bank.rows), self.temperature
        if self.softmax:
            own, others = rows[:, 0], rows[:, 1:]
            return losses.info_nce(z, own, negatives=others, temperature=temperature, normalize=False)["loss"]
        if self.log_partition.isneginf():
            self.log_partition.copy_(losses.nce_log_partition(z, rows, samples, temperature))
        constant = self.log_partition
        terms = losses.nce(z, rows=rows, log_partition=constant, samples=samples, temperature=temperature, eps=self.eps)
        return terms["loss"]
