"""Vocabularies beside loops that do the same by hand; feature maps of timm's networks."""

import pytest
import timm
import torch
from torch import nn

from fullrank.errors import InputError
from fullrank.networks import FeatureMaps, Vocabulary, perplexities, refuse_fixed_size, word_weights
from fullrank.networks.batch_norm import synchronise_batch_norm


def by_hand(vocabulary, maps, mean_distance):
    """Bag of each map, place by place."""
    bags = []
    for each in maps:
        codes = []
        for row in range(1, each.shape[1] - 1):
            for column in range(1, each.shape[2] - 1):
                distances = torch.stack([(each[:, row, column] - word).square().sum() for word in vocabulary])
                codes.append((-8 / mean_distance * distances).softmax(0))
        largest = torch.stack(codes).amax(0)
        bags.append(largest / largest.sum())
    return torch.stack(bags)


def test_bags_by_the_words_before_and_the_distance_after():
    torch.manual_seed(0)
    vocabulary = Vocabulary(6, 3, inv_delta=8.0).double()
    words, maps = vocabulary.words.clone(), torch.rand(2, 3, 5, 6, dtype=torch.float64)
    inner = maps[:, :, 1:-1, 1:-1].permute(0, 2, 3, 1).reshape(-1, 3)
    nearest = (inner[:, None] - words).square().sum(2).amin(1).mean()
    bags, _ = vocabulary(maps)
    torch.testing.assert_close(vocabulary.mean_distance, 0.99 * torch.tensor(0.5).double() + 0.01 * nearest)
    torch.testing.assert_close(bags, by_hand(words, maps, vocabulary.mean_distance))
    assert not torch.equal(vocabulary.words, words)


@pytest.mark.parametrize(("window", "places"), [(3, 2), (1, 12), (0, 1), (9, 1)])
def test_new_words_are_averages_of_a_window_inside_the_border(window, places):
    vocabulary = Vocabulary(40, 2, window=window)
    maps = torch.rand(40, 2, 5, 6)
    vocabulary(maps)
    inner = maps[:, :, 1:-1, 1:-1]  # 3 x 4
    height, width = {3: (3, 3), 1: (1, 1), 0: (3, 4), 9: (3, 4)}[window]
    chosen = set()
    for image, word in enumerate(vocabulary.words):
        averages = [
            inner[image, :, row : row + height, column : column + width].mean((1, 2))
            for row in range(4 - height)
            for column in range(5 - width)
        ]
        assert len(averages) == places
        gaps = torch.stack([(word - average).abs().max() for average in averages])
        assert gaps.min() < 1e-6
        chosen.add(int(gaps.argmin()))
    assert len(chosen) > min(places, 2) - 1, "places are drawn"


def test_hard_codes_are_the_nearest_word_and_mean_pooling_counts_them():
    vocabulary = Vocabulary(5, 3, inv_delta=0.0, pooling="mean").eval()
    maps = torch.rand(2, 3, 6, 6)
    bags, codes = vocabulary(maps)
    inner = maps[:, :, 1:-1, 1:-1].flatten(2).transpose(1, 2)
    nearest = torch.cdist(inner, vocabulary.words.expand(2, -1, -1)).argmin(2)
    assert torch.equal(codes.argmax(2), nearest)
    assert torch.equal(codes.sum(2), torch.ones(2, 16))
    torch.testing.assert_close(bags, torch.stack([row.bincount(minlength=5) / 16 for row in nearest]))


def test_evaluation_changes_nothing():
    vocabulary = Vocabulary(5, 3).eval()
    before = {key: value.clone() for key, value in vocabulary.state_dict().items()}
    vocabulary(torch.rand(2, 3, 6, 6))
    assert all(torch.equal(value, before[key]) for key, value in vocabulary.state_dict().items())


def test_a_map_that_is_all_border_is_an_error():
    with pytest.raises(InputError, match="2 x 7 cells has none inside its border"):
        Vocabulary(5, 3)(torch.rand(2, 3, 2, 7))


def test_words_start_like_outputs_of_a_relu():
    words = Vocabulary(1000, 4).words
    assert words.min() == 0
    assert 0.45 < (words == 0).float().mean() < 0.55


def test_perplexities_count_words():
    one_each = torch.eye(4)
    batch, image = perplexities(one_each)
    assert batch.item() == pytest.approx(4, rel=1e-3)
    assert image.item() == pytest.approx(1, rel=1e-3)


def test_word_weights_are_unit_rows_and_keep_no_averages():
    network = synchronise_batch_norm(word_weights(3, 6))
    rows = network(torch.rand(8, 3))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(8))
    assert not list(network.buffers())
    torch.testing.assert_close(network.eval()(torch.rand(8, 3) * 0 + 1).std(0), torch.zeros(6), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_feature_maps_are_the_last_stages(name):
    model = timm.create_model(name, num_classes=0).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        maps = FeatureMaps(model, 2)(images)
    assert len(maps) == 2
    assert [each.shape[1] for each in maps] == [info["num_chs"] for info in model.feature_info][-2:]
    assert maps[0].shape[-1] == 2 * maps[1].shape[-1]


def test_feature_maps_of_a_resnet_are_what_it_pools():
    model = timm.create_model("test_resnet", num_classes=0).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(FeatureMaps(model, 1)(images)[0].mean((2, 3)), model(images))


def test_networks_without_maps_or_with_one_size_are_refused():
    with pytest.raises(InputError, match="Linear gives no feature maps"):
        FeatureMaps(nn.Linear(2, 2), 1)
    with pytest.raises(InputError, match="VisionTransformer takes one size"):
        refuse_fixed_size(timm.create_model("vit_tiny_patch16_224", num_classes=0), "obow")
    refuse_fixed_size(timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True), "obow")
