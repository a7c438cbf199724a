"""Encoders that see a part, and what fills in the rest."""

import pytest
import timm
import torch

from fullrank.errors import InputError
from fullrank.networks import BlockPredictor, PixelDecoder, ReplacingEncoder, VisibleEncoder
from fullrank.networks.masked import block_targets, draw_weights, repeat_sets
from fullrank.networks.vit import sincos_positions, take

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
TOKENLESS = {"class_token": False, "global_pool": "avg", "fc_norm": False}
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def encoder(class_token=True, **options):
    torch.manual_seed(1)
    given = SMALL | ({} if class_token else TOKENLESS) | options
    return VisibleEncoder(timm.create_model("vit_small_patch16_224", **given), "mae", class_token=class_token)


def beit(**options):
    torch.manual_seed(1)
    network = ReplacingEncoder(timm.create_model("beit_base_patch16_224", **SMALL, **options))
    torch.nn.init.normal_(network.mask_token)
    return network


@pytest.mark.parametrize("class_token", [True, False])
def test_all_patches_in_any_order_give_the_backbones_representation(class_token):
    network = encoder(class_token)
    order = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)).argsort(1)
    tokens = network(IMAGES, order)
    torch.testing.assert_close(network.pool(tokens), network.backbone(IMAGES))
    assert network.embed(IMAGES)[0] is network.embed(IMAGES)[1] or torch.equal(*network.embed(IMAGES))


def test_hidden_patches_do_not_reach_the_encoder():
    network, keep = encoder(), torch.arange(8).expand(3, -1)  # the upper half
    changed = IMAGES.clone()
    changed[:, :, 8:] += 1
    torch.testing.assert_close(network(changed, keep), network(IMAGES, keep), rtol=0, atol=0)
    assert not torch.allclose(network(changed, keep + 8), network(IMAGES, keep + 8))


def test_several_sets_of_patches_are_passes_of_their_own():
    network = encoder(class_token=False)
    sets = torch.rand(2, 3, 16).argsort(2)[:, :, :5]
    together = network(IMAGES, sets.flatten(0, 1))
    torch.testing.assert_close(together, torch.cat([network(IMAGES, each) for each in sets]))


def test_positions_are_fixed_and_zero_at_the_class_token():
    table = encoder().backbone.pos_embed
    assert not table.requires_grad
    assert not table[0, 0].any()
    torch.testing.assert_close(table[0, 1:], sincos_positions(16, (4, 4)).float())


@pytest.mark.parametrize(
    ("name", "class_token", "options", "words"),
    [
        ("test_resnet", True, {}, "needs a vision transformer"),
        ("vit_small_patch16_224", True, SMALL | TOKENLESS, "one class token"),
        ("vit_small_patch16_224", False, SMALL, "no class token"),
        ("vit_small_patch16_224", True, SMALL | {"reg_tokens": 2}, "one class token"),
    ],
)
def test_other_networks_are_refused(name, class_token, options, words):
    with pytest.raises(InputError, match=words):
        VisibleEncoder(timm.create_model(name, **options), "mae", class_token=class_token)


def test_views_of_another_size_are_refused():
    for network, rest in ((encoder(), (None,)), (beit(), (torch.zeros(3, 36, dtype=torch.bool),))):
        with pytest.raises(InputError, match="views of 24 x 24 px: masks are made for 4 x 4 patches of 4 x 4 px"):
            network(torch.zeros(3, 3, 24, 24), *rest)


def test_beit_without_a_mask_is_the_backbone():
    network = beit(use_abs_pos_emb=True, use_shared_rel_pos_bias=True)
    torch.nn.init.normal_(network.backbone.rel_pos_bias.relative_position_bias_table)
    tokens = network(IMAGES, torch.zeros(3, 16, dtype=torch.bool))
    torch.testing.assert_close(network.pool(tokens), network.backbone(IMAGES))


def test_beit_sees_mask_tokens_where_patches_are_hidden():
    network, hidden = beit(), torch.arange(16).expand(3, -1) >= 8
    changed = IMAGES.clone()
    changed[:, :, 8:] += 1
    torch.testing.assert_close(network(changed, hidden), network(IMAGES, hidden), rtol=0, atol=0)
    assert not torch.allclose(network(changed, ~hidden), network(IMAGES, ~hidden))
    with pytest.raises(InputError, match="needs timm's BEiT"):
        ReplacingEncoder(encoder().backbone)


def test_the_decoder_puts_patches_back_in_their_places():
    decoder = PixelDecoder(encoder(), width=8, depth=1, heads=2, outputs=48)
    places = torch.rand(3, 16).argsort(1).argsort(1)
    tokens = torch.randn(3, 1 + 4, 16)
    # The same tokens in another order, and the places that belong to it.
    order = torch.tensor([2, 0, 3, 1])
    where = torch.cat([order.argsort(), torch.arange(4, 16)])
    other = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], 1)
    torch.testing.assert_close(decoder(other, where[places]), decoder(tokens, places))
    assert not torch.allclose(decoder(other, places), decoder(tokens, places))


@pytest.mark.parametrize("depth", [1, 3])
def test_what_is_not_asked_for_is_attended_to_all_the_same(depth):
    decoder = PixelDecoder(encoder(), width=8, depth=depth, heads=2, outputs=48).double()
    tokens, places = torch.randn(3, 5, 16, dtype=torch.float64, requires_grad=True), torch.rand(3, 16).argsort(1)
    asked = torch.rand(3, 16).argsort(1)[:, :7]
    inside = torch.cat([decoder.embed(tokens), decoder.mask_token.expand(3, 12, -1)], 1)
    inside = torch.cat([inside[:, :1], take(inside[:, 1:], places)], 1) + decoder.positions
    whole = decoder.head(decoder.norm(decoder.blocks(inside)))[:, 1:]
    parameters = [value for value in decoder.parameters() if value.requires_grad]
    weight = torch.randn(3, 7, 48, dtype=torch.float64)
    found, wanted = decoder(tokens, places, asked), take(whole, asked)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(decoder(tokens, places), whole)
    gradients = [torch.autograd.grad((each * weight).sum(), [tokens, *parameters]) for each in (found, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_targets_of_a_predictor_do_not_see_each_other():
    predictor = BlockPredictor(encoder(class_token=False), width=8, depth=2, heads=2, outputs=16)
    seen = torch.rand(2, 3, 16).argsort(2)[:, :, :6]  # two contexts
    asked = torch.rand(3, 3, 16).argsort(2)[:, :, :4]  # three targets
    tokens = torch.randn(6, 6, 16)
    together = predictor(tokens, seen.flatten(0, 1), asked.flatten(0, 1), 3).view(3, 2, 3, 4, 16)
    for target in range(3):
        for context in range(2):
            alone = predictor(tokens.view(2, 3, 6, 16)[context], seen[context], asked[target], 3)
            torch.testing.assert_close(together[target, context], alone)


def test_targets_are_normalised_and_stand_once_for_every_context():
    tokens, asked = 5 + 3 * torch.randn(3, 16, 8), torch.rand(2, 3, 16).argsort(2)[:, :, :4]
    targets = block_targets(tokens, asked.flatten(0, 1), contexts=2).view(2, 2, 3, 4, 8)
    torch.testing.assert_close(targets[:, 0], targets[:, 1])
    torch.testing.assert_close(targets.mean(-1), torch.zeros(2, 2, 3, 4), rtol=0, atol=1e-6)
    rows = torch.arange(6.0).view(6, 1, 1)
    assert repeat_sets(rows, 3, 2).flatten().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert take(tokens, asked.flatten(0, 1)).shape == (6, 4, 8)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(InputError, match="width 10 does not divide by 4 heads"):
        PixelDecoder(encoder(), width=10, depth=1, heads=4, outputs=48)


def test_weights_are_drawn_anew():
    network = encoder()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    draw_weights(network, torch.nn.init.xavier_uniform_)
    block, stem = network.backbone.blocks[0], network.backbone.patch_embed.proj
    bound = (6 / (16 + 48)) ** 0.5  # of the convolution as a matrix (16, 48), and of queries, keys and values together
    for weight in (stem.weight, block.attn.qkv.weight):
        assert 0.9 * bound < weight.abs().max() <= bound
    assert not block.mlp.fc1.bias.any()
    assert (block.norm1.weight == 1).all()
