"""The published formulas, written out term by term in float64: the references of the loss tests."""

from __future__ import annotations

import torch
from torch import Tensor

GRID = [(2, 2), (2, 7), (3, 1), (3, 2), (7, 20), (16, 16), (16, 17), (17, 16), (40, 9), (64, 200)]


def views(n: int, d: int, seed: int = 0, **kwargs) -> tuple[Tensor, Tensor]:
    """Two correlated views with columns of unequal mean and scale; standard deviations on both sides of 1."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.2, 2.0, d, dtype=torch.float64)
    mean = torch.linspace(-3.0, 5.0, d, dtype=torch.float64)
    shared = torch.randn(n, d, generator=generator, dtype=torch.float64) @ (
        torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, generator=generator, dtype=torch.float64)
    )
    pair = [shared + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2)]
    x, y = ((view * scale + mean).to(**kwargs).requires_grad_() for view in pair)
    return x, y


def covariance_matrix(z: Tensor) -> Tensor:
    """C(Z) = 1/(n-1) sum_i (z_i - mean)(z_i - mean)', as a sum over samples."""
    deviations = z - z.sum(0) / len(z)
    return torch.stack([torch.outer(row, row) for row in deviations]).sum(0) / (len(z) - 1)


def off_diagonal_squares(matrix: Tensor) -> Tensor:
    """Sum of the squares off the diagonal."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)].square().sum()


def vicreg_terms(x: Tensor, y: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's equations: s(Z, Z'), v(Z) + v(Z'), c(Z) + c(Z')."""
    n, d = x.shape
    invariance = sum((x[i] - y[i]).pow(2).sum() for i in range(n)) / n
    variance, covariance = 0.0, 0.0
    for z in (x, y):
        matrix = covariance_matrix(z)
        std = torch.sqrt(torch.diagonal(matrix) + eps)
        variance = variance + torch.clamp(gamma - std, min=0).sum() / d
        covariance = covariance + off_diagonal_squares(matrix) / d
    return invariance, variance, covariance


def vicreg_code_terms(x: Tensor, y: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' code: the mean over all n d numbers, and the mean of v over the two views."""
    invariance, variance, covariance = vicreg_terms(x, y, gamma, eps)
    return invariance / x.shape[1], variance / 2, covariance


def barlow_terms(x: Tensor, y: Tensor, eps: float = 1e-5, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """sum_k (C_kk - 1)^2 and sum_{k != l} C_kl^2."""
    a, b = ((z - z.mean(0)) / torch.sqrt((z - z.mean(0)).square().sum(0) / (len(z) - unbiased) + eps) for z in (x, y))
    correlation = sum(torch.outer(a[i], b[i]) for i in range(len(a))) / len(a)
    return (torch.diagonal(correlation) - 1).square().sum(), off_diagonal_squares(correlation)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """The cosine similarity of every row of x with every row of y."""
    return torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in y]) for a in x])


def log_share(scores: Tensor, place: int) -> Tensor:
    """-log of the share that the score in one place has of exp(scores)."""
    return -(scores[place].exp() / scores.exp().sum()).log()


def nt_xent_mean(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """The paper's equation 1, averaged over the 2n anchors."""
    n, both = len(x), torch.cat([x, y])
    scores = cosines(both, both) / temperature
    anchors = []
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        anchors.append(log_share(scores[i, others], others.index((i + n) % (2 * n))))
    return torch.stack(anchors).mean()


def info_nce_mean(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Every row of x among the rows of y."""
    scores = cosines(x, y) / temperature
    return torch.stack([log_share(row, i) for i, row in enumerate(scores)]).mean()


def relative_error(value: Tensor, reference: Tensor) -> float:
    """max |value - reference| / max |reference|; absolute where the reference vanishes."""
    error = (value.double() - reference.double()).abs().max().item()
    size = reference.double().abs().max().item()
    return error / size if size > 1e-10 else error


def term_errors(terms: dict[str, Tensor], expected: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Relative error of every term and of the gradient of every term, each taken on its own."""
    assert terms.keys() == expected.keys()
    errors = {}
    for name, term in terms.items():
        errors[name] = relative_error(term.detach(), expected[name].detach())
        ours = torch.autograd.grad(term, inputs, retain_graph=True)
        theirs = torch.autograd.grad(expected[name], inputs, retain_graph=True)
        errors[f"gradient of {name}"] = max(relative_error(one, other) for one, other in zip(ours, theirs, strict=True))
    return errors
