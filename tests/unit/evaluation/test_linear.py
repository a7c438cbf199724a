"""The linear probe against torch's own SGD and scikit-learn's logistic regression."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from fullrank.errors import InputError
from fullrank.evaluation import linear_probe
from fullrank.evaluation.linear import LEARNING_RATES, fit_heads, standardised, train_heads

Arrays = tuple[Tensor, Tensor, Tensor, Tensor]


def relu_features(seed: int = 0, n: int = 1000, m: int = 2000, d: int = 96, classes: int = 8) -> Arrays:
    """Overlapping classes seen through a random layer: non-negative, correlated, of unequal scale."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n + m,), generator=chance)
    hidden = torch.randn(classes, 16, generator=chance)[labels] * 0.7 + torch.randn(n + m, 16, generator=chance)
    features = (hidden @ torch.randn(16, d, generator=chance)).relu() * torch.logspace(-3, 1, d)
    return features[:n], labels[:n], features[n:], labels[n:]


def digits(seed: int) -> Arrays:
    pictures, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    pictures, labels = pictures[order].float(), labels[order]
    return pictures[:1000], labels[:1000], pictures[1000:], labels[1000:]


def test_every_head_is_torch_sgd_with_its_own_rate() -> None:
    chance = torch.Generator().manual_seed(0)
    features = torch.randn(3, 10, 5, generator=chance, dtype=torch.float64)
    labels = torch.randint(4, (3, 10), generator=chance)
    weight = torch.randn(5, 4, 2, generator=chance, dtype=torch.float64)
    bias = torch.randn(4, 2, generator=chance, dtype=torch.float64)
    layers = [nn.Linear(5, 4).double() for _ in range(2)]
    for head, layer in enumerate(layers):
        layer.weight.data, layer.bias.data = weight[..., head].T.clone(), bias[:, head].clone()
    rates = (0.3, 2.0)
    losses = train_heads(
        weight, bias, lambda _: zip(features, labels, strict=True), torch.tensor(rates, dtype=torch.float64), epochs=4
    )
    for head, (layer, rate) in enumerate(zip(layers, rates, strict=True)):
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for epoch in range(4):
            steps = []
            for x, y in zip(features, labels, strict=True):
                loss = nn.functional.cross_entropy(layer(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps.append(loss.item())
            schedule.step()
            assert losses[epoch, head] == pytest.approx(sum(steps) / 3, rel=1e-12)
        torch.testing.assert_close(weight[..., head].T, layer.weight.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias[:, head], layer.bias.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("data", [relu_features, digits])
def test_as_accurate_as_logistic_regression(data) -> None:
    """Mean over three splits, beside the better of two strengths of scikit-learn's L2 penalty on each."""
    gains = []
    for seed in range(3):
        arrays = data(seed)
        result = linear_probe(*arrays)
        train, labels, test, asked = (array.numpy() for array in arrays)
        train, test = (StandardScaler().fit(train).transform(part) for part in (train, test))
        theirs = [LogisticRegression(C=c, max_iter=1000).fit(train, labels) for c in (0.01, 1.0)]
        gains.append(result.scores["top1"] - max(100 * each.score(test, asked) for each in theirs))
    assert sum(gains) / 3 > -0.75


def test_test_samples_choose_nothing() -> None:
    train, labels, test, asked = relu_features(n=300, m=200)
    right = linear_probe(train, labels, test, asked, epochs=10)
    wrong = linear_probe(train, labels, test * 100, asked.flip(0), epochs=10)
    assert right.settings == wrong.settings
    assert right.details == wrong.details
    assert right.scores["top1"] != wrong.scores["top1"]


def test_best_rate_on_held_out_samples_is_taken() -> None:
    result = linear_probe(*relu_features(n=300, m=200), epochs=10, learning_rates=(1e30, 0.1, 1e-7))
    losses = {name: each["loss"] for name, each in result.details.items()}
    assert losses.keys() == {f"learning_rate={rate}, held out" for rate in ("1e-07", "0.1", "1e+30")}
    assert all(map(math.isfinite, losses.values()))
    assert min(losses, key=lambda name: losses[name]) == "learning_rate=0.1, held out"
    assert result.settings["learning_rate"] == 0.1


def test_one_rate_uses_every_sample_and_needs_no_choice() -> None:
    arrays = relu_features(n=40, m=50)
    result = linear_probe(*arrays, learning_rates=(0.1,), epochs=5)
    assert result.details == {}
    assert result.settings["batch_size"] == 40
    assert result == linear_probe(*arrays, learning_rates=(0.1,), epochs=5)


def test_seed_draws_weights_and_order() -> None:
    train, labels, _, _ = relu_features(n=40, m=10)
    first, again, other = (
        fit_heads(train, labels, 8, [0.1, 0.1], epochs=1, batch_size=8, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(first.weight[..., 0], first.weight[..., 1])


def test_scale_offset_and_dead_dimensions_do_not_matter() -> None:
    train, labels, test, asked = relu_features(n=300, m=200)
    spread = torch.logspace(-2, 2, train.shape[1])

    def moved(features: Tensor) -> Tensor:
        return features.double() * spread + 7.0

    def with_dead(features: Tensor) -> Tensor:
        return torch.cat([features, torch.full((len(features), 1), 3.3)], dim=1)

    options = {"learning_rates": (0.1,), "epochs": 200}
    moving = linear_probe(moved(train), labels, moved(test), asked, **options)
    assert moving.scores["top1"] == linear_probe(train.double(), labels, test.double(), asked, **options).scores["top1"]
    dead = linear_probe(with_dead(train), labels, with_dead(test), asked, **options)
    assert dead.scores["top1"] == pytest.approx(moving.scores["top1"], abs=1.0)  # other first weights


def test_standardised() -> None:
    train, _, test, _ = relu_features(n=300, m=200)
    train[:, 3], test[:, 3] = 1234.5678, 99.0
    ours = standardised(train, test)
    scaler = StandardScaler().fit(train.double())
    for part, mine in zip((train, test), ours, strict=True):
        theirs = torch.tensor(scaler.transform(part.double()))
        theirs[:, 3] = 0.0
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "epochs"), [(20, 1000), (10, 1000), (200, 100), (10_000, 30)])
def test_epochs_make_steps_enough(n: int, epochs: int) -> None:
    features, labels = torch.randn(n, 1, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 2
    result = linear_probe(features, labels, features, labels, learning_rates=(0.1,), batch_size=20)
    assert result.settings["epochs"] == epochs


def test_two_samples_are_enough() -> None:
    result = linear_probe(torch.eye(2), torch.arange(2), torch.eye(2), torch.arange(2), epochs=30)
    assert len(result.details) == len(LEARNING_RATES)
    assert all(math.isfinite(scores["loss"]) for scores in result.details.values())
    assert (result.scores["top1"], result.scores["top5"]) == (100.0, 100.0)


@pytest.mark.parametrize("wrong", [{"learning_rates": ()}, {"learning_rates": (0.1, -1.0)}, {"epochs": 0}])
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}=.*expected positive numbers"):
        linear_probe(*relu_features(n=20, m=10), **wrong)
