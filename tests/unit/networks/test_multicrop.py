"""Multi-crop: one pass a size, in an order that leads back to views and samples; vision transformers at any size."""

import pytest
import timm
import torch
from torch import nn

from fullrank.networks import MultiCrop, vit

N = 3


class Counting(nn.Module):
    """A backbone that remembers what it was given."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.seen = []
        self.layer = nn.Linear(3, 6)

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return self.layer(images.mean((2, 3)))


def views(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N, 3, size, size, generator=generator) for size in sizes]


def transformer(**options):
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_small_patch16_224", **sizes | options)
    nn.init.normal_(model.pos_embed)
    return model.eval()


@pytest.mark.parametrize("joint", [True, False])
def test_every_view_comes_back_in_its_place(joint):
    network = MultiCrop(Counting(), nn.Linear(6, 4), joint=joint)
    given = views(8, 8, 4, 4, 4, 8)
    representations, embeddings = network(given)
    assert network.backbone.seen == [(2 * N, 3, 8, 8), (3 * N, 3, 4, 4), (N, 3, 8, 8)]
    assert representations.shape == (6, N, 6)
    for place, view in enumerate(given):
        y = network.backbone(view)
        torch.testing.assert_close(representations[place], y)
        torch.testing.assert_close(embeddings[place], network.projector(y))


@pytest.mark.parametrize(("joint", "passes"), [(True, [5 * N]), (False, [2 * N, 3 * N])])
def test_norms_of_the_projector_see_all_sizes_together_or_each_apart(joint, passes):
    seen = []
    network = MultiCrop(Counting(), nn.BatchNorm1d(6), joint=joint)
    network.projector.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    network(views(8, 8, 4, 4, 4))
    assert seen == passes


def test_views_of_a_sample_stand_together_in_a_pass():
    """So rows follow the samples, and P processes draw for their rows what one would."""
    first = torch.arange(N).view(N, 1, 1, 1).expand(N, 3, 4, 4).float()
    rows = []
    backbone = Counting()
    backbone.register_forward_pre_hook(lambda module, given: rows.append(given[0][:, 0, 0, 0]))
    MultiCrop(backbone, nn.Identity())([first, first + 0.5])
    assert rows[0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_only_the_first_size_drops_patches():
    network = MultiCrop(transformer(), nn.Identity(), joint=False, resizing="msn")
    seen = []
    network.backbone.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    network(views(16, 16, 8), torch.tensor([3, 0, 9]))
    assert seen == [(2 * N, 1 + 3, 12), (N, 1 + 4, 12)]


@pytest.mark.parametrize(
    "options",
    [{}, {"global_pool": "avg"}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}, {"class_token": False}],
)
def test_a_transformer_at_its_own_size_is_as_timm_has_it(options):
    if options.get("class_token") is False:
        options = options | {"global_pool": "avg"}
    model = transformer(**options)
    images = views(16)[0]
    torch.testing.assert_close(vit.represent(model, images), model(images))
    assert vit.represent(model, views(8)[0]).shape == (N, 12)


def test_drop_path_leaves_rows_out_and_scales_the_others():
    layer, tokens = vit.DropPath(0.25), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    rows = layer(tokens)
    assert set(rows.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(rows.amin((1, 2)), rows.amax((1, 2)))  # rows as a whole
    assert 0.22 < float((rows[:, 0, 0] == 0).float().mean()) < 0.28
    assert torch.equal(layer.eval()(tokens), tokens)


def test_drop_path_grows_with_depth():
    model = transformer(depth=3)
    vit.add_drop_path(model, 0.2)
    rates = [(block.drop_path1.rate, block.drop_path2.rate) for block in model.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2]]))
