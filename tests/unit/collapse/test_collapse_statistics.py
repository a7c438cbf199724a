"""Statistics gathered in batches and merged equal the functions of the whole array, in any order and split."""

import io

import numpy as np
import pytest
import torch

from fullrank import collapse
from fullrank.collapse import PairedStatistics, Statistics
from fullrank.collapse.statistics import BUFFER_ROWS, SAMPLE_ROWS
from fullrank.errors import InputError
from tests.unit.collapse.planted import Plant, dead, gaussian, low_rank, point, power_law

EXACT = [
    "rankme",
    "effective_rank",
    "variance_rank",
    "participation_ratio",
    "stable_rank",
    "nesum",
    "pseudo_condition_number",
    "eigenvalues",
    "standard_deviation",
    "normalised_std",
    "absolute_correlation",
    "signed_correlation",
    "squared_correlation",
]
PLANTS: dict[str, Plant] = {
    "gaussian": gaussian,
    "power law": power_law(2.0),
    "low rank, tiny noise": low_rank(3, 1e-6),
    "far from the origin": lambda n, d: gaussian(n, d) + 1000,
    "around a point": point(1e-5),
    "dead dimensions": dead(0.3, value=7.0),
}
SPLITS = [[1] * 70, [35, 35], [3, 60, 7], [70]]


def assert_same_measures(ours: Statistics, vectors: torch.Tensor) -> None:
    assert ours.count == len(vectors)
    for name in EXACT:
        measure = getattr(collapse, name)
        expected = measure(vectors).numpy()
        # what is 0 in exact arithmetic is rounding in both: no relative error there; nor where terms cancel
        terms = collapse.absolute_correlation(vectors) if name == "signed_correlation" else 0.0
        size = max(np.abs(expected).max(), 1e-3, float(terms))
        np.testing.assert_allclose(measure(ours), expected, rtol=1e-9, atol=1e-12 * size, err_msg=name)


@pytest.mark.parametrize("width", [12, 69, 150])
@pytest.mark.parametrize("plant", PLANTS)
def test_one_pass_equals_the_array(plant: str, width: int) -> None:
    torch.manual_seed(0)
    vectors = PLANTS[plant](70, width)
    for sizes in SPLITS:
        statistics = Statistics(width)
        for batch in vectors.split(sizes):
            statistics.update(batch)
        assert_same_measures(statistics, vectors)


@pytest.mark.parametrize("plant", PLANTS)
def test_merged_parts_equal_the_array_in_any_order(plant: str) -> None:
    torch.manual_seed(1)
    vectors = PLANTS[plant](70, 12)
    parts = [Statistics(12).update(batch) for batch in vectors.split([40, 1, 20, 9])]
    left = Statistics(12).merge(Statistics.from_dict(parts[2].to_dict())).merge(parts[0])
    right = Statistics.from_dict(parts[3].to_dict()).merge(Statistics(12)).merge(parts[1])
    assert_same_measures(right.merge(left), vectors)


def test_rows_beyond_the_buffer() -> None:
    torch.manual_seed(2)
    vectors = low_rank(2, 1e-4)(2 * BUFFER_ROWS + 100, 5)
    statistics = Statistics(5)
    for batch in vectors.split(3000):
        statistics.update(batch)
        assert sum(len(rows) for rows in statistics.buffer) < BUFFER_ROWS
    assert_same_measures(statistics, vectors)
    assert_same_measures(Statistics.of(vectors.numpy()), vectors)


def test_mean() -> None:
    vectors = gaussian(30, 4) + torch.tensor([0, 1e-3, 50, -1e6])
    torch.testing.assert_close(Statistics.of(vectors).mean, vectors.mean(dim=0), rtol=1e-12, atol=1e-12)


def test_the_sample_is_everything_while_it_fits_and_uniform_afterwards() -> None:
    order = torch.arange(40_000, dtype=torch.float64)[:, None]
    small = Statistics(1).update(order[:600]).update(order[600:SAMPLE_ROWS])
    assert small.sample_rows.flatten().tolist() == list(range(SAMPLE_ROWS))
    first, second = Statistics(1), Statistics(1).update(order[30_000:])
    for batch in order[:30_000].split(700):
        first.update(batch)
    rows = first.merge(second).sample_rows.flatten()
    assert len(rows) == len(rows.unique()) == SAMPLE_ROWS
    shares = torch.histc(rows, bins=4, min=0, max=40_000) / SAMPLE_ROWS
    # standard error of a quarter of 1024: 0.0135
    assert (shares - 0.25).abs().max() < 0.04


def test_measures_of_pairs_of_vectors_use_the_sample() -> None:
    vectors = gaussian(5000, 6)
    units = torch.nn.functional.normalize(vectors, dim=1)
    statistics = Statistics.of(units)
    assert float(collapse.uniformity(statistics)) == float(collapse.uniformity(statistics.sample_rows))
    assert float(collapse.uniformity(statistics)) == pytest.approx(float(collapse.uniformity(units)), abs=0.02)
    assert float(collapse.self_cluster(statistics)) == pytest.approx(float(collapse.self_cluster(units)), abs=0.005)


def test_a_batch_may_be_reused_by_its_owner() -> None:
    batch = gaussian(20, 3)
    before = batch.clone()
    statistics = Statistics(3).update(batch)
    batch.zero_()
    assert_same_measures(statistics, before)
    assert torch.equal(statistics.sample_rows, before)


def test_saved_and_loaded_without_running_code() -> None:
    torch.manual_seed(3)
    vectors = gaussian(3000, 4)
    statistics, file = Statistics(4).update(vectors[:2000]), io.BytesIO()
    torch.save(statistics.to_dict(), file)
    file.seek(0)
    loaded = Statistics.from_dict(torch.load(file, weights_only=True))
    assert_same_measures(loaded.update(vectors[2000:]), vectors)
    assert torch.equal(loaded.sample_rows, statistics.update(vectors[2000:]).sample_rows)
    assert Statistics.from_dict(Statistics(4).to_dict()).count == 0


def test_pairs() -> None:
    torch.manual_seed(4)
    x = gaussian(90, 5)
    y = 0.8 * x + 0.6 * gaussian(90, 5) + 3
    whole, parts = PairedStatistics.of(x, y), PairedStatistics(Statistics(5), Statistics(5))
    for rows in torch.arange(90).split([20, 30, 40]):
        parts.merge(PairedStatistics.of(x[rows[:10]], y[rows[:10]]).update(x[rows[10:]], y[rows[10:]]))
    units = [side / side.norm(dim=1, keepdim=True) for side in (x, y)]
    centred = [side - side.mean(dim=0) for side in (x, y)]
    agreement = 2 * (centred[0] * centred[1]).sum() / sum(side.square().sum() for side in centred)
    for statistics in (whole, parts):
        assert statistics.alignment == pytest.approx(float(collapse.alignment(*units)), rel=1e-9)
        assert statistics.agreement == pytest.approx(float(agreement), rel=1e-9)
        assert_same_measures(statistics.first, x)
        assert_same_measures(statistics.second, y)


def test_refusals() -> None:
    with pytest.raises(InputError, match="no vectors were given: update the statistics"):
        collapse.rankme(Statistics(3))
    with pytest.raises(InputError, match="no vectors were given"):
        collapse.uniformity(Statistics(3))
    with pytest.raises(InputError, match="vectors of width 4 given, width 3 expected"):
        Statistics(3).update(torch.ones(2, 4))
    with pytest.raises(InputError, match="vectors of width 4 given, width 3 expected"):
        Statistics(3).merge(Statistics(4))
    with pytest.raises(InputError, match=r"shapes \(2, 3\) and \(3, 3\) given, equal ones expected"):
        PairedStatistics.of(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(InputError, match="NaN or infinite values in 1 vectors"):
        Statistics.of(np.array([[1.0, np.nan], [0, 0]]))
    with pytest.raises(InputError, match=r"shape \(4,\) given"):
        Statistics.of(np.ones(4))
