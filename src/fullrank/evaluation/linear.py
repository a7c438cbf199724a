"""Linear classification of frozen features: multinomial logistic regression trained by SGD.

The published schedule (facebookresearch/dino eval_linear.py): weights from N(0, 0.01), momentum 0.9, no weight
decay, batch 256, 100 epochs, learning rate base * batch / 256 on a cosine by epoch to 0, the base tuned for each
network. Tuning is most of the cost, so all learning rates are trained together: their heads stand side by side
in one matrix and share every product with the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fullrank.errors import InputError
from fullrank.evaluation.protocol import PROTOCOLS, Array, Result, accuracies, check_samples, find_hits

LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # at batch 256
FEWEST_EPOCHS, FEWEST_STEPS = 30, 1000  # more do not make the best learning rate better
HELD_OUT = 0.2  # share of the training samples that the learning rate is chosen on
MOST_HELD_OUT = 10_000
LOGITS = 1 << 24  # held at a time: 64 MB in float32

Batch = tuple[Float[Tensor, "b d"], Int[Tensor, "b ..."]]


@PROTOCOLS.register("linear")
def linear_probe(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, " n"] | None,
    test_features: Float[Array, "m d"],
    test_labels: Int[Array, " m"] | None,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int | None = None,
    batch_size: int = 256,
    standardise: bool = True,
    seed: int = 0,
) -> Result:
    """Accuracy of a linear classifier.

    Where several learning rates are given, the loss on a fifth of the training samples decides among them, and the
    classifier is then trained again on all: the test samples choose nothing.

    Args:
        train_features: learnt from.
        train_labels: whole numbers from 0, not necessarily contiguous.
        test_features: judged on.
        test_labels: a label that no training sample has counts as an error.
        learning_rates: bases, at batch 256. The published single value is `(0.001,)`, for features of a ViT.
        epochs: passes over the training samples, published as 100. By default 30, or what 1000 steps need.
        batch_size: samples in a step.
        standardise: bring every dimension to mean 0 and standard deviation 1 on the training samples, so that
            the same learning rates serve every network; the published code does not.
        seed: draws the first weights, the held-out fifth and the order of samples.

    Raises:
        InputError: features or labels cannot be used (see `check_samples`), or a setting is not positive.
    """
    rates = positive(learning_rates, epochs, batch_size)
    samples = check_samples(train_features, train_labels, test_features, test_labels)
    train, labels, test = samples.train, samples.train_labels, samples.test
    if standardise:
        train, test = standardised(train, test)
    schedule = usual_schedule(len(train), epochs, batch_size, seed)
    validation = _validate(train, labels, samples.classes, rates, schedule) if len(rates) > 1 else []
    best = min(validation, key=lambda scores: scores["loss"])["rate"] if validation else rates[0]
    heads = fit_heads(train, labels, samples.classes, [best], **schedule)
    (hits, _), *_ = judge_heads(test, samples.test_labels, heads)
    scores, by_class = accuracies(hits, samples.test_labels, samples.known)
    return Result(
        protocol="linear",
        scores=scores,
        n_train=len(train),
        n_test=len(test),
        classes=samples.classes,
        settings={"learning_rate": best, **schedule, "standardise": standardise},
        details={f"learning_rate={each.pop('rate'):g}, held out": each for each in validation},
        by_class=by_class,
        notes=samples.notes,
    )


def positive(learning_rates: Sequence[float], epochs: int | None, batch_size: int) -> list[float]:
    """The learning rates. Raises `InputError` where there is none, or one of the numbers is not positive."""
    rates = [float(rate) for rate in learning_rates]
    if not rates or not min(rates) > 0 or (epochs is not None and epochs < 1) or batch_size < 1:
        raise InputError(
            f"linear got learning_rates={tuple(rates)}, epochs={epochs}, batch_size={batch_size}: "
            "expected positive numbers"
        )
    return rates


def usual_schedule(count: int, epochs: int | None, batch_size: int, seed: int) -> dict[str, int]:
    """What `fit_heads` takes; without `epochs` 30 passes, or what 1000 steps need."""
    usual = max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / math.ceil(count / batch_size)))
    return {"epochs": epochs or usual, "batch_size": min(batch_size, count), "seed": seed}


def standardised(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both parts with the mean and standard deviation of `train` taken out; dimensions that are dead become 0."""
    mean, std = train.mean(0), train.std(0, correction=0)
    dead = std <= 1e-6 * mean.abs()
    scale = (1 / std).masked_fill(dead, 0.0)
    return (train - mean) * scale, (test - mean) * scale


class Heads(NamedTuple):
    """g linear classifiers of k classes, side by side."""

    weight: Float[Tensor, "d k g"]
    bias: Float[Tensor, "k g"]
    losses: Float[Tensor, "epochs g"]  # mean training loss of every epoch


def fit_heads(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n ..."],
    classes: int,
    rates: Sequence[float],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Heads:
    """One classifier for each learning rate (at batch 256), from the same first weights, in the same order.

    Labels are numbers (n,), or targets (n, classes) where a sample may have several. There the biases begin at the log
    odds of the classes: most are rare, and small rates would take the whole run to learn no more than that.
    """
    chance = torch.Generator().manual_seed(seed)
    first = torch.randn(features.shape[1], classes, 1, generator=chance) * 0.01
    weight = first.to(features).repeat(1, 1, len(rates))
    bias = weight.new_zeros(classes, len(rates))
    if labels.ndim == 2:
        present, known = (labels == 1).sum(0), (labels >= 0).sum(0)
        bias += torch.logit((present + 1) / (known + 2)).to(bias)[:, None]

    def batches(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(features), generator=chance).to(features.device)
        return ((features[part], labels[part]) for part in order.split(batch_size))

    scaled = torch.tensor(rates, dtype=features.dtype, device=features.device) * batch_size / 256
    losses = train_heads(weight, bias, batches, scaled, epochs=epochs)
    return Heads(weight, bias, losses)


def train_heads(
    weight: Float[Tensor, "d k g"],
    bias: Float[Tensor, "k g"],
    batches: Callable[[int], Iterable[Batch]],
    rates: Float[Tensor, " g"],
    *,
    epochs: int,
    momentum: float = 0.9,
) -> Float[Tensor, "epochs g"]:
    """SGD on the cross-entropy of g classifiers at once, in place, the learning rate a cosine by epoch to 0.

    Of several labels a sample, it is the mean of one cross-entropy a class, and the gradient their sum.

    Args:
        weight: first weights; the trained ones afterwards.
        bias: the same for biases.
        batches: gives the batches of an epoch.
        rates: learning rate of each classifier in the first epoch.
        epochs: passes over the batches.
        momentum: of SGD.

    Returns:
        The mean over steps of the training loss, for every epoch and classifier.
    """
    d, k, g = weight.shape
    flat, flat_bias = weight.view(d, k * g), bias.view(k * g)
    speed, bias_speed = torch.zeros_like(flat), torch.zeros_like(flat_bias)
    losses = rates.new_zeros(epochs, g)
    for epoch in range(epochs):
        step_size = (-0.5 * (1 + math.cos(math.pi * epoch / epochs)) * rates).repeat(k)  # (k g,)
        steps = 0
        for features, labels in batches(epoch):
            logits = torch.addmm(flat_bias, features, flat).view(-1, k, g)
            loss, error = (one_label if labels.ndim == 1 else several_labels)(logits, labels)
            losses[epoch] += loss
            error = error.view(-1, k * g)
            speed.addmm_(features.T, error, beta=momentum, alpha=1 / len(features))
            bias_speed.mul_(momentum).add_(error.mean(dim=0))
            flat.addcmul_(speed, step_size)
            flat_bias.addcmul_(bias_speed, step_size)
            steps += 1
        losses[epoch] /= steps
    return losses


def one_label(logits: Float[Tensor, "b k g"], labels: Int[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy (g,) and each sample's gradient in the logits (b, k, g): chances minus 1 at the label."""
    chances = logits.softmax(dim=1)
    of_label = labels[:, None, None].expand(-1, 1, logits.shape[2])
    loss = -chances.gather(1, of_label).clamp_min(1e-30).log().mean(dim=(0, 1))
    return loss, chances.scatter_add(1, of_label, -torch.ones_like(of_label, dtype=chances.dtype))


def several_labels(logits: Float[Tensor, "b k g"], targets: Int[Tensor, "b k"]) -> tuple[Tensor, Tensor]:
    """The same of one classifier a class: chances minus the target; a target of -1 teaches nothing."""
    wanted, known = targets[..., None].clamp_min(0).to(logits), (targets >= 0)[..., None]
    loss = binary_cross_entropy_with_logits(logits, wanted.expand_as(logits), reduction="none")
    return (loss * known).mean(dim=(0, 1)), (logits.sigmoid() - wanted) * known


def _validate(
    features: Tensor, labels: Tensor, classes: int, rates: Sequence[float], schedule: dict[str, int]
) -> list[dict[str, float]]:
    """Scores of every learning rate on training samples that were held out."""
    learn, judge = (part.to(features.device) for part in split_off(len(features), schedule["seed"]))
    schedule = schedule | {"batch_size": min(schedule["batch_size"], len(learn))}
    heads = fit_heads(features[learn], labels[learn], classes, rates, **schedule)
    return [
        {"rate": rate, **accuracies(hits, labels[judge], torch.arange(classes))[0], "loss": loss}
        for rate, (hits, loss) in zip(rates, judge_heads(features[judge], labels[judge], heads), strict=True)
    ]


def split_off(count: int, seed: int) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Positions of the samples to learn from and of those that are held out, drawn from the seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))
    held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT * count)))
    return order[held_out:], order[:held_out]


def judge_heads(features: Tensor, labels: Tensor, heads: Heads) -> list[tuple[Bool[Tensor, "m 2"], float]]:
    """Which samples are found first and among five, and the mean loss, for each classifier."""
    d, k, g = heads.weight.shape
    found, lost = [], features.new_zeros(g)
    chunk = max(1, LOGITS // (k * g))
    for rows, known in zip(features.split(chunk), labels.split(chunk), strict=True):
        logits = torch.addmm(heads.bias.view(-1), rows, heads.weight.view(d, -1)).view(-1, k, g)
        target = known[:, None].expand(-1, g)
        lost += cross_entropy(logits, target, reduction="none", ignore_index=-1).sum(0)
        found.append(find_hits(logits.permute(2, 0, 1), known))
    return list(zip(torch.cat(found, dim=1), (lost / len(features)).tolist(), strict=True))
