"""SimCLR: the loss on both scales, its similarities and gradients."""

import pytest
import torch

from fullrank import losses
from fullrank.losses.contrastive import info_nce_logits
from tests.reference.state import tensor

LOSSES = ["simclr_ntxent_a", "simclr_ntxent_b", "ntxent_mean2n"]


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, precision, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    z = [tensor(file, f"in_z{view}", precision).requires_grad_() for view in (1, 2)]
    options = {"temperature": p["temperature"], "normalize": p.get("hidden_norm", True)}
    reduction = "paper" if p["reduction"].startswith("mean over 2N") else "code"
    loss = losses.nt_xent(*z, **options, reduction=reduction)["loss"]
    loss.backward()
    found = {"out_loss": loss, "grad_z1": z[0].grad, "grad_z2": z[1].grad}
    if reduction == "code":
        found["out_loss_mean2n"] = losses.nt_xent(*z, **options, reduction="paper")["loss"]
        found["out_logits_ab"] = info_nce_logits(*z, None, **options)[0]
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def test_predictions_and_targets_that_are_the_embeddings(precision, fixture_file) -> None:
    file = fixture_file(LOSSES[0])
    z = [tensor(file, f"in_z{view}", precision).requires_grad_() for view in (1, 2)]
    one, other = losses.nt_xent(*z)["loss"], losses.nt_xent_predicted(*z, *z)["loss"]
    torch.testing.assert_close(one, other)
    for ours, theirs in zip(torch.autograd.grad(one, z), torch.autograd.grad(other, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
