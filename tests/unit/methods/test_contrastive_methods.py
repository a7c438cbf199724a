"""What the contrastive methods and the supervised reference do beyond the contract."""

import copy

import pytest
import torch

from fullrank import losses, methods
from fullrank.errors import InputError
from fullrank.methods import Batch, DataFacts
from fullrank.networks import Switches
from tests.contract.networks import TinyBackbone, batch, build, run


def test_simclr_sends_both_views_through_one_pass():
    method = build("simclr")
    run(method, batch("simclr"))
    assert method.backbone.norm.num_batches_tracked == 1
    separate = methods.get("simclr")(TinyBackbone(), projector="16-8", second=TinyBackbone())
    step = run(separate, batch("simclr"))
    assert [
        branch.backbone.norm.num_batches_tracked for branch in (separate.network.branch, separate.network.second)
    ] == [1, 1]
    assert step.embeddings[1].shape == (8, 8)


def test_simclr_with_predictor_and_momentum_encoder():
    switches = Switches(momentum=0.9, stop_gradient=True, predictor="8-8")
    method = methods.get("simclr")(TinyBackbone(), projector="16-8", switches=switches)
    sides = copy.deepcopy(method).network(batch("simclr").views)
    step = run(method, batch("simclr"))
    expected = losses.nt_xent_predicted(*sides.predictions, *sides.targets)["loss"]
    torch.testing.assert_close(step.loss, expected)


def test_simclr_of_inner_products_depends_on_lengths():
    views = batch("simclr").views
    for hidden_norm in (True, False):
        method = methods.get("simclr")(TinyBackbone(), projector="none", hidden_norm=hidden_norm)
        step = method(Batch(views, torch.arange(8)))
        expected = losses.nt_xent(*step.embeddings, normalize=hidden_norm)["loss"]
        torch.testing.assert_close(step.loss, expected)


@pytest.mark.parametrize("name", ["moco", "mocov2", "nnclr"])
def test_memories_stay_in_evaluation(name):
    method = build(name).eval()
    torch.nn.init.normal_(next(method.network.parameters()))  # a momentum encoder would have somewhere to go
    before = copy.deepcopy(method.state_dict())
    run(method, batch(name))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    run(method.train(), batch(name))
    assert not torch.equal(method.queue.rows, before["queue.rows"])


def test_moco_encodes_each_view_once():
    method = build("moco")
    run(method, batch("moco"))
    assert method.backbone.norm.num_batches_tracked == 1
    assert method.target.copy.backbone.norm.num_batches_tracked == 1


def test_nnclr_asks_its_queue_before_it_writes():
    method = build("nnclr", queue=8)
    with torch.no_grad():
        step = run(copy.deepcopy(method), batch("nnclr"))
        method.queue.rows.copy_(torch.nn.functional.normalize(step.embeddings[0]))
        again = run(method, batch("nnclr"))
    assert step.loss != again.loss
    torch.testing.assert_close(method.queue.rows, torch.nn.functional.normalize(step.embeddings[0]))


def test_directclr_sees_the_first_entries_only():
    method = build("directclr", dimensions=5)
    step = run(method, batch("directclr"))
    assert all(torch.equal(z, y[:, :5]) for y, z in zip(step.representations, step.embeddings, strict=True))
    (by_y,) = torch.autograd.grad(step.loss, step.representations[0])
    assert by_y[:, :5].abs().sum() > 0
    assert by_y[:, 5:].abs().sum() == 0


def test_directclr_takes_the_published_share_of_any_width():
    wide = TinyBackbone()
    for width, expected in ((2048, 360), (512, 90), (12, 2)):
        wide.num_features = width
        assert methods.get("directclr")(wide).network.projector.count == expected
    for wrong in (0, 13):
        with pytest.raises(InputError, match=f"dimensions is {wrong}: this backbone has 12, give 1 to 12"):
            methods.get("directclr")(TinyBackbone(), dimensions=wrong)


def test_supervised_needs_labels():
    with pytest.raises(InputError, match="needs labels, and these data have 0"):
        methods.get("supervised")(TinyBackbone(), facts=DataFacts(classes=0))
    method = build("supervised")
    given = batch("supervised")
    given.labels = None
    with pytest.raises(InputError, match="gives none"):
        method(given)


def test_supervised_is_cross_entropy_of_a_linear_layer():
    method = build("supervised")
    given = batch("supervised")
    step = run(method, given)
    y, layer = step.representations[0], method.network.projector
    scores = y @ layer.weight.T + layer.bias
    shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    expected = -shares[torch.arange(len(y)), given.labels].log().mean()
    torch.testing.assert_close(step.loss, expected)
