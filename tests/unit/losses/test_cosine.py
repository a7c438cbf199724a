"""BYOL's and SimSiam's losses beside their formulas, and VICReg with predictions beside VICReg without."""

import torch

from fullrank import losses


def rows(n=6, d=5, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_byol_adds_two_squared_distances_of_unit_rows():
    p1, p2, t1, t2 = rows()
    unit = [each / each.norm(dim=1, keepdim=True) for each in (p1, p2, t1, t2)]
    expected = ((unit[0] - unit[3]) ** 2).sum(1).mean() + ((unit[1] - unit[2]) ** 2).sum(1).mean()
    torch.testing.assert_close(losses.byol(p1, p2, t1, t2)["loss"], expected)


def test_both_take_zero_rows():
    zero = torch.zeros(3, 4, requires_grad=True)
    for loss in (losses.byol, losses.simsiam):
        total = loss(zero, zero, zero, zero)["loss"]
        total.backward()
        assert torch.isfinite(total)
        assert torch.isfinite(zero.grad).all()


def test_vicreg_with_predictions_that_are_the_embeddings_is_vicreg():
    z1, z2 = rows(count=2)
    plain, predicted = losses.vicreg(z1, z2), losses.vicreg_predicted(z1, z2, z1, z2, z1, z2)
    assert plain.keys() == predicted.keys()
    for name, value in plain.items():
        torch.testing.assert_close(predicted[name], value)


def test_vicreg_with_predictions_pulls_both_directions():
    p1, p2, t1, t2, z1, z2 = rows(count=6)
    terms = losses.vicreg_predicted(p1, p2, t1, t2, z1, z2)
    expected = (((p1 - t2) ** 2).mean() + ((p2 - t1) ** 2).mean()) / 2
    torch.testing.assert_close(terms["invariance"], expected)
    torch.testing.assert_close(terms["variance"], losses.vicreg(z1, z2)["variance"])
