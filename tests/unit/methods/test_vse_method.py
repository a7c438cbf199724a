"""VSE++ as a method: joint space, first weights, clipping, and the hinge beside a whole step by hand."""

import math

import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, get
from fullrank.schedules import Progress
from fullrank.training.optimizer import build_optimizer, set_rates
from tests.contract.networks import batch, build, run


def test_the_image_layer_starts_as_published():
    torch.manual_seed(0)
    linear = build("vse").network.projector[1]
    bound = math.sqrt(6 / (linear.in_features + linear.out_features))
    assert linear.weight.abs().max() <= bound
    assert linear.weight.abs().max() > 0.9 * bound
    assert not linear.bias.any()


def test_both_sides_have_length_one_and_no_signs_in_order():
    for measure, signs in (("cosine", True), ("order", False)):
        step = run(build("vse", measure=measure), batch("vse"))
        for z in step.embeddings:
            torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
            assert bool((z < 0).any()) == signs


def test_a_step_by_hand():
    method = build("vse").double()
    given = batch("vse", dtype=torch.float64)
    features = method.backbone(given.views[0])
    linear = method.network.projector[1]
    nn.init.normal_(linear.bias)  # without one, the length of the features would not matter
    unit = lambda rows: rows / rows.norm(dim=1, keepdim=True)  # noqa: E731
    images = unit(linear(unit(features)))
    captions = unit(method.text.backbone(given.views[1]))
    step = run(method, given)
    torch.testing.assert_close(step.loss, losses.vse(images, captions)["loss"])
    torch.testing.assert_close(step.representations[0], features)


def test_the_gradient_is_clipped_before_adam_steps():
    method = build("vse", max_violation=False, margin=0.9)
    run(method, batch("vse")).loss.backward()
    parameters = list(method.parameters())
    before = [parameter.grad.clone() for parameter in parameters]
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in before))
    assert norm > method.clip
    method.before_step(Progress())
    for parameter, grad in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.grad, grad * (2 / norm))


def test_the_rate_falls_to_a_tenth_at_half_of_the_run():
    published = get("vse").published
    method = nn.Linear(2, 2)
    optimizer = build_optimizer(method, published)
    rates = []
    for step in range(60):  # two steps an epoch
        set_rates(optimizer, published, Progress(step, 60, 2))
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [2e-4] * 30 + [2e-4 * 0.1] * 30
    assert isinstance(optimizer, torch.optim.Adam)
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


def test_other_captions_give_another_loss():
    method, given = build("vse"), batch("vse")
    turned = Batch([given.views[0], given.views[1].flip(0)], given.index)
    assert run(method, given).loss != run(method, turned).loss
