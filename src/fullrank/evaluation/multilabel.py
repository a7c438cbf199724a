"""Linear classification of frozen features where a sample may have several labels: one logistic regression a class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int

from fullrank.evaluation.linear import (
    LEARNING_RATES,
    fit_heads,
    positive,
    several_labels,
    split_off,
    standardised,
    usual_schedule,
)
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
    rates = positive(learning_rates, epochs, batch_size)
    samples = check_targets(train_features, train_targets, test_features, test_targets)
    train, targets, test = samples.train, samples.train_targets, samples.test
    if standardise:
        train, test = standardised(train, test)
    schedule = usual_schedule(len(train), epochs, batch_size, seed)
    classes, best, details = targets.shape[1], rates[0], {}
    if len(rates) > 1:
        learn, judge = split_off(len(train), seed)
        part = schedule | {"batch_size": min(schedule["batch_size"], len(learn))}
        heads = fit_heads(train[learn], targets[learn], classes, rates, **part)
        logits = torch.einsum("nd,dkg->nkg", train[judge], heads.weight) + heads.bias
        losses = several_labels(logits, targets[judge])[0].tolist()
        best = rates[min(range(len(rates)), key=losses.__getitem__)]
        details = {
            f"learning_rate={rate:g}, held out": {"loss": loss} for rate, loss in zip(rates, losses, strict=True)
        }
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
