"""The collapse measures equal the authors' numbers, from arrays and from statistics gathered in a stream."""

import numpy as np
import pytest
import torch

from fullrank import collapse
from fullrank.collapse import Statistics


def names(data: dict[str, object], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in data if key.startswith(prefix)]


def stream(vectors: np.ndarray) -> Statistics:
    statistics = Statistics(vectors.shape[1])
    for batch in np.array_split(vectors, 3):
        statistics.update(batch)
    return statistics


@pytest.mark.parametrize("gather", [np.asarray, stream])
def test_rankme(fixture_file, error_table, gather) -> None:
    data = fixture_file("rankme")
    for matrix in names(data, "in_"):
        out = f"out_paper_{matrix}"
        error_table.check("rankme", out, collapse.rankme(gather(data[f"in_{matrix}"])), data[out])


@pytest.mark.parametrize("gather", [np.asarray, stream])
@pytest.mark.parametrize(
    ("key", "measure"),
    [
        ("ne_sum", collapse.nesum),
        ("stable_rank", collapse.stable_rank),
        ("pcn", collapse.pseudo_condition_number),
        ("selfcluster", collapse.self_cluster),
        ("participation", collapse.participation_ratio),
    ],
)
def test_spectral_diagnostics(fixture_file, error_table, gather, key, measure) -> None:
    data = fixture_file("spectral_diagnostics")
    for matrix in names(data, f"out_{key}_"):
        out = f"out_{key}_{matrix}"
        error_table.check("spectral_diagnostics", out, measure(gather(data[f"in_{matrix}"])), data[out])


def test_coherence(fixture_file, error_table) -> None:
    data = fixture_file("spectral_diagnostics")
    for matrix in names(data, "out_coherence_"):
        out = f"out_coherence_{matrix}"
        error_table.check("spectral_diagnostics", out, collapse.coherence(data[f"in_{matrix}"]), data[out])


def test_alpha_req_on_an_eigenspectrum(fixture_file, error_table) -> None:
    data = fixture_file("alpha_req")
    params, spectrum = data["params"], torch.tensor(data["in_eig"])
    fit = collapse.power_law(spectrum, first=params["lo"], last=params["hi"])
    error_table.check("alpha_req", "out_alpha_w", fit.alpha, data["out_alpha_w"])
    error_table.check("alpha_req", "out_ypred", fit.predicted, data["out_ypred"])
    error_table.check("alpha_req", "out_r2", fit.r2, data["out_r2"])
    error_table.check("alpha_req", "out_r2_100", fit.r2_100, data["out_r2_100"])
    plain = collapse.power_law(spectrum, first=params["start"] - 1, last=params["end"], weighted=False)
    error_table.check("alpha_req", "out_alpha_ols", plain.alpha, data["out_alpha_ols"])


@pytest.mark.parametrize("gather", [np.asarray, stream])
def test_alpha_req_of_vectors(fixture_file, error_table, gather) -> None:
    data = fixture_file("alpha_req")
    vectors, params = gather(data["in_Z"]), data["params"]
    variances = collapse.eigenvalues(vectors)
    ratios, expected = variances / variances.sum(), data["out_eig_Z"]
    error_table.check("alpha_req", "out_eig_Z", ratios[: len(expected)], expected[: len(ratios)])
    alpha = collapse.alpha_req(vectors, first=params["zlo"], last=params["zhi"])
    error_table.check("alpha_req", "out_alpha_w_Z", alpha, data["out_alpha_w_Z"])


def test_align_uniform(fixture_file, error_table) -> None:
    data = fixture_file("align_uniform")
    params = data["params"]
    x = torch.tensor(data["in_x"], requires_grad=True)
    y = torch.tensor(data["in_y"], requires_grad=True)
    align = collapse.alignment(x, y, alpha=float(params["alpha"]))
    spread = [collapse.uniformity(side, t=float(params["t"])) for side in (x, y)]
    loss = params["align_w"] * align + params["unif_w"] * (spread[0] + spread[1]) / 2
    loss.backward()
    results = {
        "out_align": align,
        "out_uniform_x": spread[0],
        "out_uniform_y": spread[1],
        "out_loss": loss,
        "grad_x": x.grad,
        "grad_y": y.grad,
    }
    for key, ours in results.items():
        error_table.check("align_uniform", key, ours, data[key])


@pytest.mark.parametrize("gather", [np.asarray, stream])
def test_std_correlation(fixture_file, error_table, gather) -> None:
    data = fixture_file("std_correlation")
    first, second, constant = (gather(data[key]) for key in ("in_Z", "in_Z2", "in_Zc"))
    std = collapse.standard_deviation(first)
    kinds = {
        "abs": collapse.absolute_correlation,
        "signed": collapse.signed_correlation,
        "sq": collapse.squared_correlation,
    }
    results = {
        "out_std_l2": collapse.normalised_std(first),
        "out_ref": len(std) ** -0.5,
        "out_std_dim": std,
        "out_std_dim_vicreg": (std.square() + 1e-4).sqrt(),
        "out_std_l2_c": collapse.normalised_std(constant),
        "out_corr_abs_c": kinds["abs"](constant),
    }
    for kind, measure in kinds.items():
        results[f"out_corr_{kind}"] = measure(first)
        results[f"out_corr_{kind}_two"] = (measure(first) + measure(second)) / 2
    for key, ours in results.items():
        error_table.check("std_correlation", key, ours, data[key])
    unchanging = data["in_Zc"].std(axis=0) == 0
    assert collapse.constant_dimensions(constant).tolist() == unchanging.tolist()


def test_lidar(fixture_file, error_table) -> None:
    data = fixture_file("lidar")
    ours = collapse.lidar(data["in_Z"], delta=data["params"]["delta"], eps=data["params"]["eps"])
    error_table.check("lidar", "out_paper", ours, data["out_paper"])
