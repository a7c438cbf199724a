"""The measures of collapse: each a function of n x d vectors, or of the `Statistics` gathered from them.

Arrays may be torch tensors or numpy arrays of any real type; the arithmetic is float64. Nothing here decides
anything: the rules are in `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fullrank.collapse.statistics import Statistics, as_pairs, as_vectors
from fullrank.errors import InputError

Vectors = Tensor | np.ndarray | Statistics

RANKME_EPS = 1e-7  # the paper's constant for float32
SAFE_RATIO = 1e-3  # smallest over largest singular value above which the Gram matrix keeps ten digits of each
BLOCK = 1024  # columns or rows of a d x d or n x n matrix held at a time
CONSTANT = 1e-12  # a column whose std is this share of its magnitude differs by float64 rounding only


def factor(vectors: Vectors, *, centred: bool) -> tuple[Float[Tensor, "k d"], int]:
    """Rows with the same Gram matrix as the vectors (minus their mean), and the number n of vectors."""
    if isinstance(vectors, Statistics):
        return vectors.factor(centred=centred), vectors.count
    rows = as_vectors(vectors)
    return (rows - rows.mean(dim=0) if centred else rows), len(rows)


def spectrum(rows: Float[Tensor, "k d"]) -> Float[Tensor, " r"]:
    """Singular values, descending; through the smaller Gram matrix where that costs no digit that counts."""
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(gram)  # absolute error about 1e-16 of the largest
    if eigenvalues[0] > SAFE_RATIO**2 * eigenvalues[-1]:
        return eigenvalues.flip(0).sqrt()
    return torch.linalg.svdvals(rows)


def singular_values(vectors: Vectors, *, centred: bool) -> Float[Tensor, " r"]:
    """The min(n, d) singular values, descending, of the vectors or of the vectors minus their mean."""
    rows, count = factor(vectors, centred=centred)
    values = spectrum(rows)
    missing = min(count, rows.shape[1]) - len(values)  # statistics leave out the one that is 0
    return functional.pad(values, (0, missing))


def entropy_rank(weights: Float[Tensor, " r"], eps: float = 0.0) -> Float[Tensor, ""]:
    """exp of the Shannon entropy of the weights divided by their sum: how many of them count. 0 if all are 0."""
    if weights.sum() == 0:
        return weights.sum()
    shares = weights / weights.sum() + eps
    return torch.special.entr(shares).sum().exp()


def rankme(vectors: Vectors) -> Float[Tensor, ""]:
    """RankMe: exp entropy of the singular values of the UNCENTRED vectors, 1 to min(n, d).

    p = sigma / sum(sigma) + 1e-7, not renormalised. A common offset lowers it: that is the definition, and the
    reason why `effective_rank` is a measure of its own. Compare at equal n and d only.
    Source: Garrido et al. 2023, "RankMe" (no released code).
    """
    return entropy_rank(singular_values(vectors, centred=False), RANKME_EPS)


def effective_rank(vectors: Vectors) -> Float[Tensor, ""]:
    """Effective rank: exp entropy of the singular values of the CENTRED vectors, 0 (one point) to min(n - 1, d).

    Singular values weigh small directions far more than variances do: a little full-rank noise around a point or a
    line looks like full rank. See `variance_rank`. Source: Roy and Vetterli 2007.
    """
    return entropy_rank(singular_values(vectors, centred=True))


def eigenvalues(vectors: Vectors) -> Float[Tensor, " r"]:
    """Eigenvalues of the unbiased covariance matrix, descending, the min(n, d) that may differ from 0."""
    count = vectors.count if isinstance(vectors, Statistics) else len(vectors)
    if count == 1:
        raise InputError("1 vector given, at least 2 expected: one vector has no covariance")
    return singular_values(vectors, centred=True).square() / (count - 1)


def variance_rank(vectors: Vectors) -> Float[Tensor, ""]:
    """exp entropy of the VARIANCES along the principal directions: deaf to small noise. 0 to min(n - 1, d)."""
    return entropy_rank(eigenvalues(vectors))


def participation_ratio(vectors: Vectors) -> Float[Tensor, ""]:
    """(sum of eigenvalues)^2 / sum of squared eigenvalues of the covariance, 1 to min(n - 1, d), 0 for one point.

    Source: Gao et al. 2017.
    """
    return participation(eigenvalues(vectors))


def participation(variances: Float[Tensor, " r"]) -> Float[Tensor, ""]:
    """1 / sum of squared shares, 0 if all are 0."""
    return ratio(variances.sum().square(), variances.square().sum())


def ratio(part: Float[Tensor, ""], whole: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """part / whole, 0 where there is no whole."""
    return torch.where(whole == 0, torch.zeros_like(whole), part / whole.clamp(min=torch.finfo(whole.dtype).tiny))


def stable_rank(vectors: Vectors) -> Float[Tensor, ""]:
    """Squared Frobenius over squared spectral norm of the UNCENTRED vectors: 1 to min(n, d), 0 for zeros.

    Source: Tsitsulin et al. 2023, google-research graph_embedding/metrics, without its 1e-12 beside the norm, which
    would make it depend on the scale.
    """
    powers = singular_values(vectors, centred=False).square()
    return ratio(powers.sum(), powers[0])


def nesum(vectors: Vectors) -> Float[Tensor, ""]:
    """Sum of the covariance eigenvalues over the largest: 1 to min(n - 1, d), 0 for one point.

    Source: He and Ozay 2022; google-research graph_embedding/metrics `ne_sum`.
    """
    variances = eigenvalues(vectors)
    return ratio(variances.sum(), variances[0])


def pseudo_condition_number(vectors: Vectors) -> Float[Tensor, ""]:
    """Smallest over largest singular value of the UNCENTRED vectors: 0 when a direction is missing, 1 when all equal.

    Source: Tsitsulin et al. 2023, google-research graph_embedding/metrics.
    """
    values = singular_values(vectors, centred=False)
    return ratio(values[-1], values[0])


def coherence(vectors: Tensor | np.ndarray) -> Float[Tensor, ""]:
    """n / r times the largest squared row of the left singular vectors: 1 (all rows matter equally) to n / r.

    r = min(n, d). Means nothing for rank-deficient vectors, whose last left singular vectors are arbitrary.
    Source: Tsitsulin et al. 2023, google-research graph_embedding/metrics.
    """
    left = torch.linalg.svd(as_vectors(vectors), full_matrices=False).U
    return len(left) / left.shape[1] * left.square().sum(dim=1).max()


def self_cluster(vectors: Vectors) -> Float[Tensor, ""]:
    """How much closer two vectors are in angle than random ones: 0 like random directions, 1 all parallel.

    (sum of squared cosines - e) / (n^2 - e), e = n + n (n - 1) / d. From the sample if given `Statistics`.
    Source: Tsitsulin et al. 2023, google-research graph_embedding/metrics.
    """
    rows = functional.normalize(sample_rows(vectors), dim=1)
    count, width = rows.shape
    gram = rows @ rows.T if count < width else rows.T @ rows
    expected = count + count * (count - 1) / width
    return (gram.square().sum() - expected) / (count**2 - expected)


def sample_rows(vectors: Vectors) -> Float[Tensor, "m d"]:
    """All rows of an array; of `Statistics` those of its uniform sample."""
    if isinstance(vectors, Statistics):
        return vectors.sample_rows
    return as_vectors(vectors)


@dataclass(frozen=True)
class PowerLaw:
    """A fit lambda_i = c i^-alpha to an eigenspectrum."""

    alpha: float
    predicted: Float[Tensor, " r"]  # over all ranks, not only the fitted ones
    r2: float  # on log values, from rank first + 2 (1-based) to the 500th or, below 512 values, the tenth from the end
    r2_100: float  # the same up to rank 100


def power_law(spectrum: Float[Tensor, " r"], *, first: int = 10, last: int = 100, weighted: bool = True) -> PowerLaw:
    """Fit a power law to the eigenvalues first..last - 1 (from 0): least squares of log value on log rank.

    `weighted` weighs rank i by 1/i (the authors' `stringer_get_powerlaw`, alpha-ReQ); without it, their `fit_powerlaw`.
    The two goodness figures start one rank late, as the authors' do. Source: Agrawal et al. 2022, fastssl.

    Raises:
        InputError: fewer than two positive eigenvalues in the range.
    """
    chosen = spectrum[first:last]
    if len(chosen) < 2 or not bool((chosen > 0).all()):
        raise InputError(
            f"eigenvalues {first} to {last - 1} given for a power law, of which {int((chosen > 0).sum())} are "
            "positive: at least two, all positive, expected: choose a range inside the rank"
        )
    logs, ranks = spectrum.abs().log(), torch.arange(1, len(spectrum) + 1, dtype=spectrum.dtype)
    log_ranks = ranks.to(spectrum.device).log()
    weights = 1 / log_ranks[first:last].exp() if weighted else torch.ones_like(chosen)
    weights = weights / weights.sum()
    x, y = log_ranks[first:last], logs[first:last]
    x_mean, y_mean = (weights * x).sum(), (weights * y).sum()
    slope = (weights * (x - x_mean) * (y - y_mean)).sum() / (weights * (x - x_mean).square()).sum()
    fitted = y_mean + slope * (log_ranks - x_mean)
    end = 500 if len(spectrum) >= 512 else len(spectrum) - 10
    return PowerLaw(
        -float(slope), fitted.exp(), _r_squared(logs, fitted, first + 1, end), _r_squared(logs, fitted, first + 1, 100)
    )


def _r_squared(actual: Tensor, fitted: Tensor, start: int, end: int) -> float:
    actual, fitted = actual[start:end], fitted[start:end]
    if len(actual) < 2:
        return float("nan")
    return 1 - float((actual - fitted).square().sum() / (actual - actual.mean()).square().sum())


def alpha_req(vectors: Vectors, *, first: int | None = None, last: int | None = None) -> Float[Tensor, ""]:
    """alpha-ReQ: exponent of the power law of the covariance eigenvalues; near 1 good, large collapsed, small white.

    Fitted on eigenvalues 10..99 (from 0) as the authors do; where min(n - 1, d) is smaller the range ends there, and
    below 20 it starts at 0. Source: Agrawal et al. 2022, fastssl.
    """
    values = eigenvalues(vectors)
    count = vectors.count if isinstance(vectors, Statistics) else len(vectors)
    last = min(100, count - 1, len(values)) if last is None else last
    first = (10 if last >= 20 else 0) if first is None else first
    return values.new_tensor(power_law(values / values.sum(), first=first, last=last).alpha)


def standard_deviation(vectors: Vectors) -> Float[Tensor, " d"]:
    """Unbiased standard deviation of each dimension over the vectors."""
    rows, count = factor(vectors, centred=True)
    if count < 2:
        raise InputError("1 vector given, at least 2 expected: one vector has no spread")
    return (rows.square().sum(dim=0) / (count - 1)).sqrt()


def normalised_std(vectors: Vectors) -> Float[Tensor, ""]:
    """Mean unbiased std of the dimensions of z/||z||: 1/sqrt(d) when spread over the sphere, 0 when collapsed.

    The curve of SimSiam. It sees neither missing directions (rank 2 of 128 may score 1/sqrt(d)) nor a healthy cloud
    with an offset (scores near 0). Source: Chen and He 2021, section 4.1; lightly `std_of_l2_normalized`.
    """
    moments = Statistics.of(vectors).normalised_moments
    if moments.count < 2:
        raise InputError("1 vector given, at least 2 expected: one vector has no spread")
    return (moments.deviations / (moments.count - 1)).sqrt().mean()


def to_sphere(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The vectors scaled to length 1; zeros stay."""
    return functional.normalize(vectors, dim=1)


def constant_dimensions(vectors: Vectors) -> Bool[Tensor, " d"]:
    """Which dimensions never change (their std is float64 rounding of their size, or nothing)."""
    rows = factor(vectors, centred=True)[0]
    size = factor(vectors, centred=False)[0].square().sum(dim=0)
    return rows.square().sum(dim=0) <= CONSTANT**2 * size


def standardised(vectors: Vectors) -> Float[Tensor, "k c"]:
    """Columns whose inner products are the Pearson correlations, constant dimensions left out."""
    rows = factor(vectors, centred=True)[0][:, ~constant_dimensions(vectors)]
    return rows / rows.norm(dim=0)


def correlation_blocks(columns: Float[Tensor, "k c"]) -> Iterator[tuple[int, Float[Tensor, "b c"]]]:
    """The correlation matrix in strips of rows with their first row's index, diagonal set to 0; never whole."""
    for start in range(0, columns.shape[1], BLOCK):
        strip = columns[:, start : start + BLOCK].T @ columns
        strip.diagonal(start).zero_()
        yield start, strip


def mean_off_diagonal(total: Float[Tensor, ""], width: int) -> Float[Tensor, ""]:
    """A sum over ordered pairs of different dimensions as a mean; 0 when there is no pair."""
    return total / max(width * (width - 1), 1)


def absolute_correlation(vectors: Vectors) -> Float[Tensor, ""]:
    """Mean |correlation| over pairs of different, non-constant dimensions: 0 to 1. Costs k d^2, memory 1024 d."""
    columns = standardised(vectors)
    total = columns.new_zeros(())
    for _, strip in correlation_blocks(columns):
        total = total + strip.abs().sum()
    return mean_off_diagonal(total, columns.shape[1])


def signed_correlation(vectors: Vectors) -> Float[Tensor, ""]:
    """Mean correlation over pairs of different, non-constant dimensions: -1/(d-1) to 1. Opposite signs cancel."""
    columns = standardised(vectors)
    return mean_off_diagonal(columns.sum(dim=1).square().sum() - columns.shape[1], columns.shape[1])


def squared_correlation(vectors: Vectors) -> Float[Tensor, ""]:
    """Mean squared correlation over pairs of different, non-constant dimensions: 0 to 1.

    Its inverse is about the participation ratio of the standardised vectors. Source: VICReg, figure 5 (exponent open).
    """
    columns = standardised(vectors)
    gram = columns @ columns.T if columns.shape[0] < columns.shape[1] else columns.T @ columns
    return mean_off_diagonal(gram.square().sum() - columns.shape[1], columns.shape[1])


def alignment(x: Tensor | np.ndarray, y: Tensor | np.ndarray, *, alpha: float = 2.0) -> Float[Tensor, ""]:
    """Mean over positive pairs of ||x_i - y_i||^alpha, differentiable; give unit vectors (0 to 2^alpha).

    Source: Wang and Isola 2020, align_uniform `align_loss`.
    """
    first, second = as_pairs(x, y)
    return (first - second).norm(dim=1).pow(alpha).mean()


def uniformity(vectors: Vectors, *, t: float = 2.0) -> Float[Tensor, ""]:
    """log mean over pairs i < j of exp(-t ||z_i - z_j||^2), differentiable; give unit vectors: about -2t to 0.

    From the sample if given `Statistics`. Source: Wang and Isola 2020, align_uniform `uniform_loss`.
    """
    rows = sample_rows(vectors)
    if len(rows) < 2:
        raise InputError("1 vector given, at least 2 expected: uniformity is a mean over pairs")
    count, norms, total = len(rows), rows.square().sum(dim=1), rows.new_zeros(())
    for start in range(0, count, BLOCK):
        here = slice(start, start + BLOCK)
        squared = norms[here, None] + norms[start:] - 2 * rows[here] @ rows[start:].T
        total = total + squared.mul(-t).exp().triu(diagonal=1).sum()
    return (total / (count * (count - 1) / 2)).log()


def lidar(views: Tensor | np.ndarray, *, delta: float = 1e-4, eps: float = 1e-8) -> Float[Tensor, ""]:
    """LiDAR: effective rank of the between-sample scatter measured in units of the within-sample scatter.

    `views` is n x q x d: q views of each of n samples. Population means; M = Sw^-1/2 Sb Sw^-1/2 with delta added to
    the diagonal of Sw; exp entropy of p = lambda / sum(lambda) + eps over all d of them. 0 to min(n - 1, d).
    Source: Thilak et al. 2024 (no released code).
    """
    tensor = torch.as_tensor(views)
    if tensor.ndim != 3 or min(tensor.shape) < 1:
        raise InputError(f"shape {tuple(tensor.shape)} given, n x q x d expected: q views of each of n samples")
    count, per_sample, width = tensor.shape
    tensor = as_vectors(tensor.reshape(-1, width)).reshape(count, per_sample, width)
    means = tensor.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (tensor - means[:, None]).reshape(-1, width)
    scatter = within.T @ within / len(within) + delta * torch.eye(width, dtype=within.dtype, device=within.device)
    # the eigenvalues of M are the squared singular values of Sb^1/2 Sw^-1/2: never negative
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), between.T, upper=False)
    values = torch.linalg.svdvals(whitened).square()
    return entropy_rank(functional.pad(values, (0, width - len(values))), eps)
