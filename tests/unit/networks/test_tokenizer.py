"""Tokenizers: k-means beside scikit-learn's, what codes do not depend on, an autoencoder that learns."""

import numpy as np
import pytest
import timm
import torch
from sklearn.cluster import KMeans

from fullrank import losses
from fullrank.errors import InputError
from fullrank.networks import DiscreteVAE, PatchKMeans, ReplacingEncoder, Tokenizer
from fullrank.networks.tokenizer import ROUNDS, draw_exponential, k_means, nearest, spread_rows

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(300, 5, generator=GENERATOR, dtype=torch.float64)


def pictures(n=6, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(3))


def test_nearest_centre_is_that_of_the_distances():
    centres = ROWS[:20]
    torch.testing.assert_close(nearest(ROWS, centres), torch.cdist(ROWS, centres).argmin(1))
    assert nearest(ROWS[:3], torch.cat([centres, centres])).tolist() == [0, 1, 2], "the first of equal ones"


def test_k_means_is_scikit_learns_from_the_same_start():
    torch.manual_seed(5)
    start = spread_rows(ROWS, torch.rand(12, dtype=torch.float64))
    torch.manual_seed(5)
    ours = k_means(ROWS, 12)
    theirs = KMeans(12, init=start.numpy(), n_init=1, max_iter=ROUNDS, tol=0, algorithm="lloyd").fit(ROWS.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.cluster_centers_, rtol=1e-9, atol=1e-9)


def test_a_centre_that_no_row_is_nearest_to_stays():
    rows = torch.tensor([[1.0], [2.0]]).repeat(10, 1)
    centres = k_means(rows, 5)  # three of them are copies, which are nobody's nearest
    assert sorted(centres.unique().tolist()) == [1.0, 2.0]


def test_a_start_never_has_a_row_twice_while_others_are_left():
    rows = torch.tensor([[0.0], [1.0], [5.0], [9.0]]).repeat(50, 1)
    for _ in range(20):
        assert spread_rows(rows, torch.rand(4, dtype=torch.float64)).unique().numel() == 4
    assert spread_rows(rows, torch.rand(6, dtype=torch.float64)).shape == (6, 1)


def test_a_far_row_is_drawn_early():
    rows = torch.cat([torch.zeros(99, 1), torch.full((1, 1), 100.0)])
    second = [spread_rows(rows, torch.rand(2, dtype=torch.float64)).max() for _ in range(20)]
    assert min(second) == 100.0


def test_codes_are_made_by_the_first_batch_and_stay():
    tokenizer = PatchKMeans(24, patch=(4, 4), grid=(4, 4), channels=3)
    codes = tokenizer(pictures())
    assert codes.shape == (6, 4, 4)
    assert codes.dtype == torch.long
    assert bool(tokenizer.fitted)
    centres = tokenizer.centres.clone()
    tokenizer(pictures(2) ** 2)
    assert torch.equal(tokenizer.centres, centres)
    torch.testing.assert_close(tokenizer(pictures()), codes)
    other = PatchKMeans(24, patch=(4, 4), grid=(4, 4), channels=3)
    other.load_state_dict(tokenizer.state_dict())
    torch.testing.assert_close(other(pictures()), codes)


def test_codes_ignore_brightness_and_contrast_and_follow_patches():
    tokenizer = PatchKMeans(24, patch=(4, 4), grid=(4, 4), channels=3)
    codes = tokenizer(pictures())
    for other in (pictures() + 0.5, 0.7 * pictures()):
        assert (tokenizer(other) == codes).float().mean() > 0.95
    assert tokenizer.centres.mean(1).abs().max() < 1e-5, "no centre is brighter than another"
    rolled = pictures().roll((4, 8), (2, 3))
    torch.testing.assert_close(tokenizer(rolled), codes.roll((1, 2), (1, 2)))


def test_the_autoencoder_learns_to_reconstruct():
    torch.manual_seed(0)
    vae = DiscreteVAE(16, grid=(4, 4), levels=2, width=16, code_width=16)
    optimizer = torch.optim.Adam(vae.parameters(), 0.003)
    for _ in range(220):
        colours = torch.rand(32, 3, 4, 4).round().repeat_interleave(4, 2).repeat_interleave(4, 3)  # 8, one a patch
        images = vae.prepare(colours)
        terms = losses.dvae(images, *vae.reconstruct(images))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["reconstruction"] < 0.75 * images.var(), "one grey for all would be at 1"
    codes = vae(colours)
    assert codes.shape == (32, 4, 4)
    assert codes.unique().numel() > 2


def tokenizer(kind, side, patch, channels=3):
    small = {"embed_dim": 8, "depth": 1, "num_heads": 1, "num_classes": 0}
    beit = timm.create_model("beit_base_patch16_224", img_size=side, patch_size=patch, in_chans=channels, **small)
    return Tokenizer(kind, 8, ReplacingEncoder(beit), [0.5, 0.4, 0.3][:channels], [0.1, 0.2, 0.3][:channels])


@pytest.mark.parametrize("kind", ["kmeans", "dvae"])
def test_a_tokenizer_sees_pixels_as_they_were(kind):
    model, pixels = tokenizer(kind, 16, 4), pictures()
    views = (pixels - model.mean) / model.std
    codes = model(views)
    assert codes.shape == (6, 16)
    torch.testing.assert_close(codes, model.model(pixels).flatten(1))
    assert model.is_trained == any(True for _ in model.parameters())


def test_the_autoencoder_sees_a_size_that_fits_the_grid():
    # DALL-E's: pictures of 224 px in patches of 16 px are seen at 112 px, 8 px a code.
    images, reconstructions, logits = tokenizer("dvae", 224, 16, channels=1).reconstruct(torch.zeros(2, 1, 224, 224))
    assert images.shape == reconstructions.shape == (2, 1, 112, 112)
    assert logits.shape == (2, 8, 14, 14)
    small, pixels = tokenizer("dvae", 32, 4), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(small.model.prepare(pixels), 0.8 * pixels + 0.1)
    with pytest.raises(InputError, match="unknown tokenizer 'vqvae'"):
        tokenizer("vqvae", 16, 4)


def test_noise_is_exponential_and_each_rows_own():
    torch.manual_seed(1)
    draws = draw_exponential(torch.zeros(4, 50, 10, 10))
    assert abs(float(draws.mean()) - 1) < 0.03
    assert abs(float(draws.var()) - 1) < 0.1
    assert not torch.equal(draws[0], draws[1])
    torch.manual_seed(1)
    torch.testing.assert_close(draw_exponential(torch.zeros(2, 50, 10, 10)), draws[:2], rtol=0, atol=0)
