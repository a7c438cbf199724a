"""The siamese network: joint passes, branches without a projector, and what its switches refuse."""

import copy

import pytest
import torch
from torch import nn

from fullrank.errors import InputError
from fullrank.networks import Head, Siamese, Switches
from fullrank.networks.batch_norm import synchronise_batch_norm
from fullrank.networks.projector import each_view


def backbone(width=6):
    network = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
    network.num_features = width
    return network


def views(n=5, count=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 4, generator=generator) + position for position in range(count)]


@pytest.mark.parametrize("switches", [Switches(), Switches(predictor="7-3"), Switches(momentum=0.9)])
def test_a_joint_pass_has_the_statistics_of_both_views(switches):
    network = Siamese(backbone(), Head("8-3"), switches, joint_pass=True)
    sides = copy.deepcopy(network)(views())
    y, z = network.branch(torch.cat(views()))
    joint = {"representations": y, "embeddings": z, "predictions": z, "targets": z}
    if network.predictor:
        joint["predictions"] = network.predictor(z)
    if network.target:
        joint["targets"] = network.target(torch.cat(views()))[1]
    for name, expected in joint.items():
        for ours, theirs in zip(getattr(sides, name), expected.split(5), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert network.branch.backbone[1].num_batches_tracked == 1


@pytest.mark.parametrize("switches", [Switches(), Switches(predictor="7-3", momentum=0.9, stop_gradient=True)])
def test_heads_give_in_one_pass_what_each_view_gives_alone(switches):
    network = Siamese(backbone(), Head("8-3", {"output_norm": "affine"}), switches).double()
    alone = copy.deepcopy(network)
    given = [view.double() for view in views(count=3)]
    sides = network(given)
    y, z = zip(*(alone.branch(view) for view in given), strict=True)
    expected = {"representations": y, "embeddings": z, "predictions": z, "targets": z}
    if network.predictor:
        expected["predictions"] = [alone.predictor(embedding) for embedding in z]
    if network.target:
        expected["targets"] = [alone.target(view)[1] for view in given]
    for name, rows in expected.items():
        for ours, theirs in zip(getattr(sides, name), rows, strict=True):
            torch.testing.assert_close(ours, theirs)
    for predictions in (sides.predictions, expected["predictions"]):
        sum((position + 1) * rows.pow(3).sum() for position, rows in enumerate(predictions)).backward()
    for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(network.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "layers", [nn.BatchNorm1d(4), nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Tanh())]
)
def test_layers_that_are_no_stack_or_hide_a_norm_take_the_views_apart(layers):
    for rows, view in zip(each_view(layers, views()), views(), strict=True):
        torch.testing.assert_close(rows, copy.deepcopy(layers)(view))


class RunningMean(nn.Module):
    """A stranger's layer that subtracts the mean of the batch, and is no batch norm by class."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))

    def forward(self, rows):
        return rows - rows.mean(0)


@pytest.mark.parametrize(
    ("layer", "passes"),
    [(nn.LayerNorm(4), 1), (nn.BatchNorm1d(4), 2), (RunningMean(), 2)],
    ids=["layer", "batch", "own"],
)
def test_a_backbone_takes_all_views_at_once_where_no_sample_sees_another(layer, passes):
    network = nn.Sequential(nn.Sequential(layer, nn.Tanh()))
    network.num_features, calls = 4, []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    alone = copy.deepcopy(network)
    representations = Siamese(network, Head("8-3"), Switches())(views()).representations
    assert len(calls) == passes
    for ours, view in zip(representations, views(), strict=True):
        torch.testing.assert_close(ours, alone(view))


def test_separate_passes_have_statistics_of_their_own():
    network = Siamese(backbone(), Head("8-3"), Switches())
    sides = network(views())
    assert network.branch.backbone[1].num_batches_tracked == 2
    for y in sides.representations:
        torch.testing.assert_close(y.mean(0), torch.zeros(6), rtol=0, atol=1e-6)


def test_views_with_networks_of_their_own_never_share_a_pass():
    network = Siamese(backbone(), Head("8-3"), Switches(), second=backbone(5), joint_pass=True)
    sides = network(views(count=3))
    assert [y.shape[1] for y in sides.representations] == [6, 5, 5]
    for y, width in zip(sides.representations, (6, 5, 5), strict=True):
        torch.testing.assert_close(y.mean(0), torch.zeros(width), rtol=0, atol=1e-6)


@pytest.mark.parametrize("none", ["", "none"])
def test_without_a_projector_z_is_y(none):
    network = Siamese(backbone(), Head(none), Switches(predictor="7-6"))
    assert not list(network.branch.projector.parameters())
    sides = network(views())
    assert all(torch.equal(y, z) for y, z in zip(sides.representations, sides.embeddings, strict=True))
    with pytest.raises(InputError, match="predictor 7-3 ends at 3, the projector at 6"):
        Siamese(backbone(), Head(none), Switches(predictor="7-3"))
    normalised = Siamese(backbone(), Head(none), Switches(normalize_embedding="l2"))
    torch.testing.assert_close(normalised(views()).embeddings[0].norm(dim=1), torch.ones(5))


def test_output_norm_with_a_scale_alone_over_all_processes(monkeypatch):
    """One process that is told of another with the same rows."""
    from fullrank import distributed

    head = Head("8-3", {"output_bias": False, "output_norm": "scale"}).build(6, norm=True)
    assert head[-1].bias is None
    nn.init.uniform_(head[-1].weight)
    rows = torch.randn(16, 6)
    expected = head(rows)
    everywhere = synchronise_batch_norm(copy.deepcopy(head))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_sum", lambda value: 2 * value)
    torch.testing.assert_close(everywhere(rows), expected)


def test_initial_weights_of_a_head():
    torch.manual_seed(0)
    head = Head("400-300", {"init_std": 0.01}).build(200, norm=True)
    for layer in (head[0], head[3]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
