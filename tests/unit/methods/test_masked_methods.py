"""What is particular to MAE, I-JEPA and BEiT beyond the contract of all methods."""

import math

import pytest
import torch

from fullrank.errors import InputError
from fullrank.methods import Batch, get
from fullrank.schedules import Progress
from fullrank.training.optimizer import build_optimizer, set_rates
from fullrank.views.masks import block_size, size_draws
from tests.contract.networks import N, backbone, batch, build, run
from tests.contract.test_methods import assert_two_processes_equal_one, train

DVAE = {"tokenizer": "dvae", "codes": 16, "tokenizer_share": 0.5}


def test_one_view_is_asked_for():
    two = Batch(batch("mae").views * 2, torch.arange(N))
    with pytest.raises(InputError, match="2 views: this method looks at one"):
        build("mae")(two)


@pytest.mark.parametrize("ratio", [0.0, 0.95, 1.0])
def test_mae_hides_some_patches_and_keeps_some(ratio):
    with pytest.raises(InputError, match=f"mask_ratio {ratio} of 16 patches"):
        build("mae", mask_ratio=ratio)


def test_mae_compares_pixels_as_they_are_where_asked():
    given = batch("mae")
    losses = [run(build("mae", norm_pix=norm), given).loss for norm in (True, False)]
    scaled = Batch([10 * given.views[0]], given.index)
    assert losses[0] != losses[1]
    assert run(build("mae", norm_pix=False), scaled).loss > 20 * losses[1], "squares of the pixels"
    assert run(build("mae", norm_pix=True), scaled).loss < 2 * losses[0]


def test_ijepa_sizes_follow_from_the_step_alone():
    method = build("ijepa", target_scale=[0.3, 0.6])
    for step in range(5):
        seen, asked = method.draw_masks(N, Progress(step, 100))
        target, _ = size_draws(step)
        assert asked.shape == (4 * N, math.prod(block_size(target, (4, 4), (0.3, 0.6), (0.75, 1.5))))
        assert len(seen) == N
        again = method.draw_masks(N, Progress(step, 100))[1]
        assert again.shape == asked.shape
        assert not torch.equal(again, asked), "their places are drawn"


def test_ijepa_refuses_an_endless_search_when_it_is_built():
    with pytest.raises(InputError, match="min_keep 10 on a grid of 4 x 4 patches: blocks may have 2"):
        build("ijepa", min_keep=10)
    with pytest.raises(InputError, match="heads"):
        build("ijepa", predictor_width=387)


def test_ijepa_keeps_the_momentum_encoder():
    method = build("ijepa", momentum=0.5)
    first = [parameter.clone() for parameter in method.backbone.parameters()]
    train(method, "ijepa", 1)
    trained = list(method.network.backbone.parameters())
    for before, kept, followed in zip(first, method.backbone.parameters(), trained, strict=True):
        torch.testing.assert_close(kept, (before + followed) / 2)
    images = batch("ijepa").views[0]
    torch.testing.assert_close(method.embed(images)[1], method.target.copy.backbone(images))


def test_beit_hides_the_published_shares():
    kind = get("beit")
    vit = backbone(kind)
    vit.patch_embed.grid_size = (14, 14)
    assert kind(vit, codes=4).hidden == {"goal": 75, "smallest": 16}
    assert build("beit").hidden == {"goal": 6, "smallest": 1}, "the same shares of 4 x 4"


def test_beit_clips_the_norm_of_all_gradients_together():
    method = build("beit")
    (50 * run(method, batch("beit")).loss).backward()
    before = {key: parameter.grad.clone() for key, parameter in method.named_parameters()}
    norm = torch.stack([gradient.norm() for gradient in before.values()]).norm()
    assert norm > 3
    method.before_step(Progress())
    for key, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad, before[key] * 3 / norm, rtol=1e-4, atol=1e-7)


def test_beit_without_any_hidden_patch_has_a_loss_of_zero():
    method = build("beit")
    method.draw_masks = lambda pictures: torch.zeros(pictures, 16, dtype=torch.bool)
    assert run(method, batch("beit")).loss == 0


def test_the_autoencoder_is_trained_first_and_alone():
    method = build("beit", **DVAE)
    published = method.published
    optimizer = build_optimizer(method, published)
    parts = {"network": [method.network, method.head], "tokenizer": [method.tokenizer]}

    def state():
        return {part: [p.detach().clone() for m in modules for p in m.parameters()] for part, modules in parts.items()}

    changed, terms = [], []
    for step in range(4):
        before, progress = state(), Progress(step, 4, 1)
        given = batch("beit", seed=step)
        outcome = run(method, Batch(given.views, given.index, progress=progress))
        optimizer.zero_grad()
        outcome.loss.backward()
        set_rates(optimizer, published, progress)
        method.before_step(progress)
        optimizer.step()
        after = state()
        moved = {
            part: [not torch.equal(*pair) for pair in zip(before[part], after[part], strict=True)] for part in parts
        }
        changed.append({part: (any(each), all(each)) for part, each in moved.items()})
        terms.append("reconstruction" in outcome.terms)
    still, moving = (False, False), (True, True)
    assert terms == [True, True, False, False]
    assert [each["network"] for each in changed[:2]] == [still, still]
    assert [each["tokenizer"] for each in changed] == [moving, moving, still, still]
    assert changed[3]["network"][0]


def test_two_processes_train_one_autoencoder(processes, tmp_path):
    """For two steps the autoencoder, then the network."""
    assert_two_processes_equal_one("beit", processes(2), tmp_path, steps=4, options=DVAE)
