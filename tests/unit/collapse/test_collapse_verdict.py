"""Embeddings whose state was planted, or trained in, are named, for the right reason and with a fitting remedy."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fullrank.collapse import PairedStatistics, Statistics, diagnose
from fullrank.collapse.evidence import Evidence
from fullrank.errors import InputError
from tests.unit.collapse.planted import (
    Plant,
    clusters,
    dead,
    duplicated,
    few_factors,
    gaussian,
    low_rank,
    mixed_relu,
    point,
    power_law,
    rank_share,
    rotation,
    sparse_relu,
    with_variances,
)

HEALTHY, DIMENSIONAL, COMPLETE = "healthy", "dimensional collapse", "complete collapse"
GRID = [(64, 8), (64, 64), (64, 300), (65, 1200), (300, 8), (300, 32), (300, 300), (1100, 128)]

PLANTED: dict[str, tuple[str, Plant]] = {
    "gaussian": (HEALTHY, gaussian),
    "gaussian in float32": (HEALTHY, lambda n, d: gaussian(n, d).float()),
    "small": (HEALTHY, lambda n, d: 1e-4 * gaussian(n, d)),
    "large": (HEALTHY, lambda n, d: 1e4 * gaussian(n, d)),
    "on the sphere": (HEALTHY, lambda n, d: functional.normalize(gaussian(n, d), dim=1)),
    "slow decay": (HEALTHY, power_law(0.7)),
    "power law": (HEALTHY, power_law(1.0)),
    "power law, rotated": (HEALTHY, lambda n, d: power_law(1.0)(n, d) @ rotation(d)),
    "fast decay": (HEALTHY, power_law(1.4)),
    "sparse ReLU": (HEALTHY, sparse_relu),
    "mixed ReLU": (HEALTHY, mixed_relu),
    "offset of 5 std": (HEALTHY, lambda n, d: gaussian(n, d) + 5),
    "offset of 100 std": (HEALTHY, lambda n, d: gaussian(n, d) + 100),
    "offset of 100 std in float32": (HEALTHY, lambda n, d: (gaussian(n, d) + 100).float()),
    "a few dead": (HEALTHY, dead(0.05)),
    "a few stuck": (HEALTHY, dead(0.2, value=3.0)),
    "one duplicate": (HEALTHY, duplicated(0.0)),
    "a few duplicates": (HEALTHY, duplicated(0.1)),
    "rank 1": (DIMENSIONAL, low_rank(1)),
    "rank 2": (DIMENSIONAL, low_rank(2)),
    "rank 2 in float32": (DIMENSIONAL, lambda n, d: low_rank(2)(n, d).float()),
    "rank 2 in bfloat16": (DIMENSIONAL, lambda n, d: low_rank(2)(n, d).bfloat16()),
    "rank 2, noise 0.001": (DIMENSIONAL, low_rank(2, 1e-3)),
    "rank 2, noise 0.01": (DIMENSIONAL, low_rank(2, 1e-2)),
    "rank 2, noise 0.1": (DIMENSIONAL, low_rank(2, 1e-1)),
    "rank 2, small": (DIMENSIONAL, lambda n, d: 1e-4 * low_rank(2, 1e-2)(n, d)),
    "rank 2, rotated": (DIMENSIONAL, lambda n, d: low_rank(2, 1e-2)(n, d) @ rotation(d)),
    "rank 2, offset": (DIMENSIONAL, lambda n, d: low_rank(2, 1e-2)(n, d) + 10),
    "an eighth of the rank": (DIMENSIONAL, rank_share(1 / 8, 0.0)),
    "an eighth of the rank, noise 0.01": (DIMENSIONAL, rank_share(1 / 8, 0.01)),
    "an eighth of the rank, noise 0.1": (DIMENSIONAL, rank_share(1 / 8, 0.1)),
    "a quarter of the rank, noise 0.1": (DIMENSIONAL, rank_share(1 / 4, 0.1)),
    "two clusters": (DIMENSIONAL, clusters(2, 0.01)),
    "two wide clusters": (DIMENSIONAL, clusters(2, 0.07)),
    "two points": (DIMENSIONAL, clusters(2, 0.0)),
    "three clusters": (DIMENSIONAL, clusters(3, 0.01)),
    "most dead": (DIMENSIONAL, dead(0.8)),
    "most stuck": (DIMENSIONAL, dead(0.8, value=2.0)),
    "most duplicated": (DIMENSIONAL, duplicated(0.8)),
    "zeros": (COMPLETE, torch.zeros),
    "one value": (COMPLETE, torch.ones),
    "one vector": (COMPLETE, point(0.0)),
    "one vector, noise 0.001": (COMPLETE, point(1e-3)),
    "one vector, noise 0.000001": (COMPLETE, point(1e-6)),
    "one vector, noise 0.000001 in float32": (COMPLETE, lambda n, d: point(1e-6)(n, d).float()),
    "one vector, noise 0.001, small": (COMPLETE, lambda n, d: 1e-4 * point(1e-3)(n, d)),
    "one vector and a few others": (COMPLETE, lambda n, d: dead_rows(gaussian(n, d))),
}


def dead_rows(vectors: Tensor) -> Tensor:
    """All but the last twentieth of the vectors are one."""
    vectors[: -len(vectors) // 20] = 1
    return vectors


@pytest.mark.parametrize(("n", "d"), GRID)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_state_is_named(name: str, n: int, d: int) -> None:
    torch.manual_seed(n + d)
    expected, plant = PLANTED[name]
    verdict = diagnose(plant(n, d))
    assert verdict.verdict == expected, str(verdict)


@pytest.mark.parametrize("rank", [3, 10, 40])
def test_the_rank_of_the_floor_is_found(rank: int) -> None:
    torch.manual_seed(0)
    verdict = diagnose(low_rank(rank, 0.01)(500, 100))
    assert verdict.measures["alive_directions"] == rank
    assert f"lies in {rank} of 100 possible directions" in verdict.reason


def test_empty_directions_count_where_a_floor_cannot_be_seen() -> None:
    torch.manual_seed(0)
    verdict = diagnose(low_rank(1)(100, 4))
    assert verdict.verdict == DIMENSIONAL
    assert verdict.reason == "Z (100 x 4) varies in 1 of 4 possible directions only; the others are empty."


def test_a_cliff_counts_whatever_follows() -> None:
    """Noise that differs in strength between directions is no flat floor."""
    torch.manual_seed(0)
    noise = 0.01 * gaussian(500, 100) * torch.logspace(0, -3, 100, dtype=torch.float64)
    verdict = diagnose((low_rank(30)(500, 100) + noise) @ rotation(100))
    assert verdict.verdict == DIMENSIONAL
    assert verdict.measures["alive_directions"] == 30


def test_borders_of_complete_collapse() -> None:
    torch.manual_seed(0)
    assert diagnose(gaussian(400, 30) + 250).verdict == HEALTHY
    assert diagnose(gaussian(400, 30) + 400).verdict == COMPLETE
    assert diagnose(0.12 * gaussian(400, 30), target_std=1).verdict == HEALTHY
    shrunk = diagnose(0.08 * gaussian(400, 30), target_std=1)
    assert shrunk.verdict == COMPLETE
    assert "standard deviation of its dimensions is 0.08 where the loss asks for 1" in shrunk.reason


@pytest.mark.parametrize("fall", [4.0, 20.0])
def test_healthy_training_on_simple_data_is_not_low_rank(fall: float) -> None:
    """A plateau of a few directions and a tail that decays without an edge: honest, and worth a remark."""
    torch.manual_seed(0)
    verdict = diagnose(few_factors(fall)(2000, 512) @ rotation(512))
    assert verdict.verdict == HEALTHY
    assert any("of 512 possible directions, without an edge" in remark for remark in verdict.remarks)


def test_a_steep_spectrum_without_a_floor_is_collapse() -> None:
    """What training without the covariance term gives."""
    torch.manual_seed(0)
    verdict = diagnose(with_variances(800, torch.arange(1, 257).double() ** -4) @ rotation(256))
    assert verdict.verdict == DIMENSIONAL
    assert verdict.reason.startswith("95 % of the variance of Z (800 x 256) lies in 2 of 256 possible directions, ")


def test_a_long_tail_does_not_hide_a_collapse_and_few_directions_are_not_yet_one() -> None:
    """Both as trained: the first without covariance term, the second in the first steps with it."""
    torch.manual_seed(0)
    tail = torch.arange(1, 505).double() ** -1.5
    collapsed = with_variances(800, torch.cat([torch.tensor([1.0]).double(), 0.03 * tail])) @ rotation(505)
    early = with_variances(800, torch.cat([0.38 * torch.arange(1, 9).double() ** -1, 0.02 * tail])) @ rotation(512)
    first, second = diagnose(collapsed), diagnose(early)
    assert (first.verdict, second.verdict) == (DIMENSIONAL, HEALTHY)
    assert (first.measures["directions_95"], second.measures["directions_95"]) == (2, 8)
    assert first.measures["effective_rank"] > 50


@pytest.mark.parametrize("plant", [dead(0.8), duplicated(0.8)])
def test_dead_and_duplicated_dimensions_show_where_the_rank_cannot(plant: Plant) -> None:
    torch.manual_seed(0)
    verdict = diagnose(plant(64, 2000))
    assert verdict.measures["effective_rank"] > 55
    assert verdict.verdict == DIMENSIONAL
    assert verdict.reason.startswith("Of the 2000 dimensions of Z (64 x 2000), ")


def test_a_dead_dimension_is_not_also_a_duplicate() -> None:
    torch.manual_seed(0)
    vectors = gaussian(200, 30)
    vectors[:, :4] = vectors[:, 25:29] = 1e-5 * vectors[:, 10:14]
    found = diagnose(vectors).measures
    assert (found["dead_dimensions"], found["copied_dimensions"]) == (8, 0)


def test_sparse_units_that_share_one_active_vector_are_no_duplicates() -> None:
    torch.manual_seed(0)
    vectors = torch.relu(gaussian(64, 600) - 2.2)
    verdict = diagnose(vectors)
    assert verdict.measures["copied_dimensions"] == 0
    correlations = np.corrcoef(vectors[:, vectors.std(dim=0) > 0].T) - np.eye(int((vectors.std(dim=0) > 0).sum()))
    assert (correlations > 0.999).sum() > 50


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (dead(0.05), "5 of 100 dimensions of Z are dead"),
        (duplicated(0.07), "7 of 100 dimensions of Z are duplicates"),
        (lambda n, d: gaussian(n, 70) @ gaussian(70, d), "30 of 100 possible directions of Z are empty"),
        (lambda n, d: gaussian(n, d) + 20, "mean of Z is 20 times as long as the spread"),
        (lambda n, d: 0.01 * gaussian(n, d), "say so with --target_std 1"),
        (lambda n, d: gaussian(90, d), "90 vectors show at most 89 of the 100 directions"),
        (lambda n, d: with_variances(n, torch.tensor([200.0] + 99 * [1.0]).double()), "one direction alone holds 6"),
        (lambda n, d: torch.cat([gaussian(n, d), 100 * gaussian(3, d)]), "the farthest hundredth of the vectors of Z"),
    ],
)
def test_remarks(plant: Plant, said: str) -> None:
    torch.manual_seed(1)
    n = 900
    assert any(said in remark for remark in diagnose(plant(n, 100)).remarks)
    assert not any(said in remark for remark in diagnose(gaussian(n, 100)).remarks)


def test_nothing_more_is_said_of_one_point() -> None:
    torch.manual_seed(0)
    assert diagnose(point(1e-3)(100, 60)).remarks == []


def test_an_ordinary_embedding_gets_no_remark() -> None:
    torch.manual_seed(0)
    vectors = gaussian(500, 60)
    assert diagnose(vectors, vectors + 0.5 * gaussian(500, 60)).remarks == []


def test_clusters_are_counted_in_bits() -> None:
    torch.manual_seed(0)
    verdict = diagnose(clusters(4, 0.01)(400, 50))
    assert verdict.measures["clusters"] == 4
    assert "4 tight clusters" in verdict.reason
    assert "at most 2.0 bits" in verdict.reason
    assert "clusters" not in diagnose(gaussian(400, 50)).measures


def test_outliers_are_no_clusters() -> None:
    torch.manual_seed(0)
    assert "clusters" not in diagnose(torch.cat([gaussian(300, 20), 1000 * gaussian(3, 20)])).measures


def test_the_share_of_the_variance_between_clusters() -> None:
    torch.manual_seed(0)
    vectors = clusters(3, 0.1)(300, 20)
    centres = torch.stack([vectors[start::3].mean(dim=0) for start in range(3)])
    expected = centres.sub(vectors.mean(dim=0)).square().sum() * 100 / vectors.sub(vectors.mean(dim=0)).square().sum()
    found = Evidence("Z", Statistics.of(vectors)).clusters
    assert found is not None
    assert (found.count, found.share) == (3, pytest.approx(float(expected), rel=1e-9))


def test_a_branch_that_collapses_alone() -> None:
    torch.manual_seed(0)
    alive, collapsed = gaussian(200, 40), low_rank(2)(200, 40)
    for pair, side in (((alive, collapsed), "second"), ((collapsed, alive), "first")):
        verdict = diagnose(*pair)
        assert verdict.verdict == DIMENSIONAL
        assert verdict.reason.startswith(f"Z, {side} view alone: ")
    both = diagnose(collapsed, collapsed + 1e-3 * alive)
    assert "alone" not in both.reason
    assert both.measures["second_effective_rank"] == pytest.approx(
        diagnose(collapsed + 1e-3 * alive).measures["effective_rank"]
    )
    worse = diagnose(collapsed, torch.ones(200, 40))
    assert worse.verdict == COMPLETE


def test_views_that_do_not_agree_are_remarked_and_no_collapse() -> None:
    torch.manual_seed(0)
    x, noise = gaussian(500, 40), gaussian(500, 40)
    unrelated, same, related = diagnose(x, noise), diagnose(x, x), diagnose(x, x + noise)
    assert {unrelated.verdict, same.verdict, related.verdict} == {HEALTHY}
    assert any("what varies is noise" in remark for remark in unrelated.remarks)
    assert any("the two views are the same vectors" in remark for remark in same.remarks)
    assert related.remarks == []
    assert related.measures["agreement"] == pytest.approx(2 / 3, abs=0.03)
    gaps = functional.normalize(x, dim=1) - functional.normalize(x + noise, dim=1)
    assert related.measures["alignment"] == pytest.approx(float(gaps.square().sum(dim=1).mean()))


@pytest.mark.parametrize("plant", [gaussian, low_rank(2, 0.01), point(1e-3), clusters(3, 0.01), duplicated(0.1)])
def test_statistics_are_judged_like_the_array(plant: Plant) -> None:
    torch.manual_seed(0)
    vectors = plant(500, 24)
    parts = [Statistics(24).update(vectors[:33]), Statistics(24).update(vectors[33:400]).update(vectors[400:])]
    ours, expected = diagnose(parts[1].merge(parts[0])), diagnose(vectors.numpy())
    assert (ours.verdict, ours.reason, ours.remarks) == (expected.verdict, expected.reason, expected.remarks)
    assert ours.measures == pytest.approx(expected.measures, rel=1e-6, abs=1e-6)
    paired = PairedStatistics.of(vectors, vectors.flip(0))
    assert diagnose(paired).to_dict() == diagnose(vectors, vectors.flip(0)).to_dict()


@pytest.mark.parametrize("plant", [gaussian, low_rank(2), point(0.0), torch.zeros, clusters(2, 0.01)])
@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (64, 1), (5, 40), (100, 10)])
def test_every_size_gives_a_verdict_that_json_takes(plant: Plant, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    verdict = diagnose(plant(*shape), name="embedding")
    written = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert written["verdict"] == verdict.verdict
    assert all(math.isfinite(value) for value in written["measures"].values())
    assert str(verdict).startswith(f"embedding: {verdict.verdict}. {verdict.reason} {verdict.remedy}")


def test_too_few_vectors_for_chance_are_not_called_collapsed() -> None:
    for shape in ((3, 3), (5, 5), (6, 100), (7, 7), (100, 3), (12, 500)):
        for seed in range(32):
            torch.manual_seed(seed)
            assert diagnose(gaussian(*shape)).verdict == HEALTHY


def cone(n: int, d: int, width: float) -> Tensor:
    """Directions around one, a spread of `width` to either side in every dimension."""
    return 1 + width * torch.randn(n, d)


def test_directions_that_are_all_the_same_are_a_collapse_where_they_are_all_that_counts() -> None:
    torch.manual_seed(0)
    narrow, wide, stretched = cone(800, 64, 0.03), cone(800, 64, 0.5), gaussian(800, 64) * torch.rand(800, 1)
    assert [diagnose(each).verdict for each in (narrow, wide, stretched)] == [HEALTHY] * 3
    verdict = diagnose(narrow, on_sphere=True)
    assert verdict.verdict == COMPLETE
    assert "point the same way" in verdict.reason
    assert "about 0.999" in verdict.reason
    assert diagnose(wide, on_sphere=True).verdict == HEALTHY
    assert diagnose(stretched, on_sphere=True).verdict == HEALTHY
    assert diagnose(narrow.numpy(), on_sphere=True).verdict == COMPLETE
    narrow[:8] = gaussian(8, 64)  # a hundredth elsewhere hides nothing
    assert diagnose(narrow, on_sphere=True).verdict == COMPLETE
    assert diagnose(wide, narrow, on_sphere=True).reason.startswith("Z, second view alone: nearly all vectors")
    with pytest.raises(InputError, match="scale the vectors, then gather"):
        diagnose(Statistics.of(narrow), on_sphere=True)


def test_remedies_speak_of_the_options_of_the_run() -> None:
    torch.manual_seed(0)
    flat, dot = low_rank(1)(100, 20), torch.ones(100, 20)
    added = {"variance": {"regularize.variance": (0.0, 25)}, "covariance": {"regularize.covariance": (0.0, 1)}}
    own = {"variance": {"variance": (5.0, 25.0)}, "covariance": {"covariance": (0.0, 1.0)}}
    redundancy = added | {"covariance": {"redundancy": (0.0051, 0.0051)} | added["covariance"]}

    def remedy(vectors: Tensor, **settings: object) -> str:
        return diagnose(vectors, settings=settings).remedy

    off = {"stop_gradient": True, "predictor": "512-2048"}
    text = remedy(dot, levers=added, off=off)
    assert text == (
        "This run leaves out what its method publishes against collapse: turn it on again with --stop_gradient true "
        "--predictor 512-2048; or add VICReg's variance term with --regularize.variance 25."
    )
    assert "--regularize.covariance 1" in remedy(flat, levers=added, off=off)
    assert remedy(flat, levers=added, off={}, learning_rate=0.1).startswith(
        "Add VICReg's covariance term with --regularize.covariance 1; lower the learning rate, now 0.1,"
    )
    assert remedy(dot, levers=own).startswith("Raise --variance, now 5 (published: 25); lower the learning rate")
    assert remedy(flat, levers=own) == (
        "--covariance is 0, so nothing keeps the dimensions from repeating one another: set it to 1."
    )
    text = remedy(flat, levers=redundancy)
    assert "only if that does not help raise --redundancy, as 0.0051 should be enough; or add VICReg's cov" in text
    assert "Barlow" not in text
    both = {"variance": {"variance": (0.0, 25.0)}, "covariance": {"covariance": (0.0, 1.0)}}
    assert remedy(dot, levers=both).endswith("set it to 25 and --covariance to 1.")
    raised = {"variance": {"regularize.variance": (25.0, 25)}, "covariance": {"regularize.covariance": (0.5, 1)}}
    assert "only if that does not help raise --regularize.variance" in remedy(dot, levers=raised)
    assert remedy(flat, levers=raised).startswith("Raise --regularize.covariance, now 0.5 (published: 1)")


def test_remedies_name_what_is_switched_off_or_too_strong() -> None:
    torch.manual_seed(0)
    flat, dot = low_rank(1)(100, 20), torch.ones(100, 20)

    def remedy(vectors: Tensor, name: str = "Z", **settings: object) -> str:
        return diagnose(vectors, name=name, settings=settings).remedy

    assert remedy(flat) != remedy(dot)
    assert "the covariance coefficient is 0" in remedy(flat, variance=25, covariance=0).lower()
    assert "Raise the covariance coefficient, now 0.5 (VICReg: 1)" in remedy(flat, variance=25, covariance=0.5)
    assert remedy(dot, variance=0, covariance=1).startswith(
        "The variance coefficient is 0, so nothing holds the vectors"
    )
    assert "set it to 25 and the covariance coefficient to 1." in remedy(dot, variance=0, covariance=0)
    fast = remedy(dot, variance=25, covariance=1, learning_rate=4.8, warmup_epochs=0, precision="16-mixed")
    assert fast.startswith("Lower the learning rate, now 4.8, or lengthen the warm-up, now 0 epochs")
    assert "precision 16-mixed" in fast
    assert "precision" not in remedy(dot, variance=25, precision="bf16-mixed")
    assert "stop-gradient" in remedy(dot, method="simsiam")
    assert "Barlow Twins" in remedy(flat, method="barlow_twins")
    assert "only through the projector" in remedy(flat, name="Y")
    assert "only through the projector" not in remedy(gaussian(100, 20), name="Y")
    assert "blank" in remedy(dead_rows(gaussian(100, 20)))
    assert "prototypes" in remedy(clusters(2, 0.01)(100, 20))
    assert "narrower" in remedy(low_rank(6)(200, 60))
    assert "batch norm before the ReLU" in remedy(dead(0.8)(20, 60))
    assert "never filled" in remedy(torch.zeros(100, 20))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.ones(1, 3),), "Z: 1 vectors given, at least 2 expected"),
        ((torch.ones(3),), r"Z: shape \(3,\) given, n x d expected"),
        ((torch.full((3, 2), math.nan),), "Z: NaN or infinite values in 3 vectors"),
        ((np.array([[1, math.inf], [1, 2]]),), "Z: NaN or infinite values in 1 vectors"),
        ((torch.ones(3, 2), torch.ones(3, 4)), r"shapes \(3, 2\) and \(3, 4\) given"),
        ((Statistics(3),), "Z: 0 vectors given, at least 2 expected"),
    ],
)
def test_refusals(given: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        diagnose(*given)


class Siamese(nn.Module):
    """A small backbone (Y) and expander (Z) trained by VICReg on views of points on a curved 16-dimensional surface."""

    def __init__(self) -> None:
        super().__init__()
        surface = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 32)).requires_grad_(False)
        samples = surface(torch.randn(2048, 16))
        self.samples = (samples - samples.mean(dim=0)) / samples.std(dim=0)
        self.backbone = nn.Sequential(
            nn.Linear(32, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        self.expander = nn.Sequential(
            nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128, bias=False)
        )

    def fit(self, invariance: float, variance: float, covariance: float) -> Tensor:
        """Embeddings of all samples after 150 steps."""
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        for _ in range(150):
            batch = self.samples[torch.randint(0, 2048, (128,))]
            x, y = (self.expander(self.backbone(batch + 0.3 * torch.randn_like(batch))) for _ in range(2))
            loss = invariance * functional.mse_loss(x, y)
            for z in (x, y):
                table = torch.cov(z.T)
                loss = loss + variance * torch.relu(1 - (table.diagonal() + 1e-4).sqrt()).mean() / 2
                loss = loss + covariance * (table.square().sum() - table.diagonal().square().sum()) / 128
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return self.eval().expander(self.backbone(self.samples))


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ((25.0, 25.0, 1.0), HEALTHY),
        ((25.0, 0.0, 0.0), COMPLETE),
        ((25.0, 0.0, 1.0), COMPLETE),
        ((25.0, 25.0, 0.0), DIMENSIONAL),
    ],
)
def test_trained_embeddings_are_named(coefficients: tuple[float, float, float], expected: str) -> None:
    torch.manual_seed(0)
    verdict = diagnose(Siamese().fit(*coefficients), target_std=1)
    assert verdict.verdict == expected, str(verdict)
