"""DINO's linear classifier on stored features: two epochs of SGD, step by step."""

import pytest
import torch

from fullrank.evaluation.linear import train_heads


def features_of(tokens: torch.Tensor, average: bool) -> torch.Tensor:
    """(steps, blocks, batch, tokens, width) of the last blocks -> (steps, batch, features), as the authors do.

    The CLS tokens of the blocks, oldest first; with `average` followed by the mean patch token of the last block.
    For one block the two are interleaved entry by entry, which is how theirs stacks and reshapes them.
    """
    features = tokens[:, :, :, 0].permute(0, 2, 1, 3).flatten(2)
    if not average:
        return features
    patches = tokens[:, -1, :, 1:].mean(2)
    return torch.stack([features, patches], dim=-1).flatten(2)


@pytest.mark.parametrize("name", ["eval_dino_linear_cls", "eval_dino_linear_cls_avg"])
def test_two_epochs(name: str, precision: str, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p, dtype = file["params"], getattr(torch, precision)
    tokens, weight, bias = (
        torch.tensor(file[key], dtype=dtype) for key in ("in_tokens", "in_linear.weight", "in_linear.bias")
    )
    features, labels = features_of(tokens, p["avg"]), torch.tensor(file["in_target"])
    heads = weight.T.clone()[..., None], bias.clone()[:, None]  # (d, k, 1), (k, 1)
    rate = p["lr"] * p["B"] / 256
    losses = train_heads(
        *heads,
        lambda _: zip(features, labels, strict=True),
        torch.tensor([rate], dtype=dtype),
        epochs=p["epochs"],
        momentum=p["momentum"],
    )
    ours = {
        "out_features": features,
        "out_epoch_loss": losses[:, 0],
        "out_linear.weight": heads[0][..., 0].T,
        "out_linear.bias": heads[1][:, 0],
    }
    for key, value in ours.items():
        error_table.check(name, key, value, file[key], precision=precision)
