"""Linear classification of frozen features where a sample may have several labels: one logistic regression a class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int

from fullrank.errors import InputError
from fullrank.evaluation.linear import LEARNING_RATES, fit_heads, split_off, standardised, usual_epochs
from fullrank.evaluation.protocol import (
    MULTILABEL,
    Array,
    Result,
    check_targets,
    mean_average_precision,
)


@MULTILABEL.register("linear")
def multilabel_probe(
    train_features: Float[Array, "n d"],
    train_targets: Int[Array, "n classes"] | None,
    test_features: Float[Array, "m d"],
    test_targets: Int[Array, "m classes"] | None,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int | None = None,
    batch_size: int = 256,
    standardise: bool = True,
    seed: int = 0,
) -> Result:
    """Mean average precision of linear classifiers, one a class, trained as `linear_probe` trains its one.

    Arguments are those of `linear_probe`; targets are 1 (present), 0 (absent) or -1 (neither right nor wrong). Classes
    that training or test samples lack are left out and said.

    Raises:
        InputError: as `linear_probe` and `check_targets`.
    """
    rates = [float(rate) for rate in learning_rates]
    if not rates or not min(rates) > 0 or (epochs is not None and epochs < 1) or batch_size < 1:
        raise InputError(f"linear got {rates}, epochs={epochs}, batch_size={batch_size}: expected positive numbers")
    samples = check_targets(train_features, train_targets, test_features, test_targets)
    train, targets, test = samples.train, samples.train_targets, samples.test
    if standardise:
        train, test = standardised(train, test)
    epochs = epochs or usual_epochs(len(train), batch_size)
    schedule = {"epochs": epochs, "batch_size": min(batch_size, len(train)), "seed": seed}
    classes, best, details = targets.shape[1], rates[0], {}
    if len(rates) > 1:
        learn, judge = split_off(len(train), seed)
        part = schedule | {"batch_size": min(schedule["batch_size"], len(learn))}
        heads = fit_heads(train[learn], targets[learn], classes, rates, **part)
        logits = torch.einsum("nd,dkg->gnk", train[judge], heads.weight) + heads.bias.T[:, None]
        losses = [float(_loss(each, targets[judge])) for each in logits]
        best = rates[min(range(len(rates)), key=losses.__getitem__)]
        details = {f"learning_rate={rate:g}": {"loss": loss} for rate, loss in zip(rates, losses, strict=True)}
    heads = fit_heads(train, targets, classes, [best], **schedule)
    decisions = test @ heads.weight[..., 0] + heads.bias[:, 0]
    scores, by_class = mean_average_precision(decisions.cpu().numpy(), samples.test_targets.cpu().numpy(), samples.kept)
    return Result(
        protocol="linear",
        scores=scores,
        n_train=len(train),
        n_test=len(test),
        classes=classes,
        settings={"learning_rate": best, **schedule, "standardise": standardise},
        details=details,
        by_class=by_class,
        notes=samples.notes,
    )


def _loss(logits: Float[torch.Tensor, "n k"], targets: Int[torch.Tensor, "n k"]) -> torch.Tensor:
    known = targets >= 0
    wanted = targets.clamp_min(0).to(logits)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, weight=known.to(logits))
