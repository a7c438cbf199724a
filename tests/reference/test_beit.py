"""BEiT: region masks, relative positions, attention, tokenizer, and whole training steps through the method."""

import numpy as np
import pytest
import timm
import torch
from timm.models import beit as timm_beit
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, Optimization, get
from fullrank.networks import DiscreteVAE
from fullrank.networks.tokenizer import map_pixels, unmap_pixels
from fullrank.schedules import Progress
from fullrank.training.optimizer import build_optimizer, set_rates
from fullrank.views.masks import Draws, grow_region
from tests.reference.conftest import as_array
from tests.reference.state import by_prefix, load, tensor


class Recorded(Draws):
    """The numbers that the authors' code drew: kind 0 between two ends, kind 1 whole numbers."""

    def __init__(self, draws: np.ndarray) -> None:
        self.left = draws.tolist()

    def uniform(self, start: float | int, end: float | int) -> float:
        kind, value = self.left.pop(0)
        assert kind == 0
        assert min(start, end) <= value <= max(start, end)
        return value

    def below(self, bound: int) -> int:
        kind, value = self.left.pop(0)
        assert kind == 1
        assert 0 <= value < bound
        return int(value)


def grow(p: dict, draws: Draws) -> tuple[np.ndarray, list[int]]:
    """The mask and how many patches each block added."""
    mask = np.zeros(p["input_size"], dtype=bool)
    largest, aspect = p.get("max_num_patches"), p.get("min_aspect", 0.3)
    sizes = {"smallest": p["min_num_patches"], "largest": largest, "aspect": aspect}
    return mask, list(grow_region(mask, p["num_masking_patches"], **sizes, draws=draws))


@pytest.mark.parametrize("number", range(2))
def test_masks_from_recorded_draws(number, fixture_file, error_table) -> None:
    name = f"beit_mask_exact_{number}"
    file = fixture_file(name)
    count = file["params"]["masks"]
    assert {key for key in file if key.startswith("out_")} == {f"out_mask_{t}" for t in range(count)}
    for t in range(count):
        draws = Recorded(file[f"in_draws_{t}"])
        error_table.check(name, f"out_mask_{t}", grow(file["params"], draws)[0], file[f"out_mask_{t}"])
        assert not draws.left, "every recorded draw is used"


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Total variation between two histograms of any length."""
    length = max(len(ours), len(theirs))
    padded = [np.pad(each / each.sum(), (0, length - len(each))) for each in (ours, theirs)]
    return float(np.abs(padded[0] - padded[1]).sum() / 2)


@pytest.mark.parametrize("name", ["beit_mask_stats_official", "beit_mask_stats_capped"])
def test_statistics_of_our_draws(name, fixture_file, error_table) -> None:
    """The tolerances are the words of the index; the table shows the largest share of one."""
    file = fixture_file(name)
    p = file["params"]
    torch.manual_seed(0)
    draws = Draws()
    masks, blocks = zip(*(grow(p, draws) for _ in range(p["draws"])), strict=True)
    counted = {
        "total": [int(mask.sum()) for mask in masks],
        "blocks": [len(added) for added in blocks],
        "first_block": [added[0] for added in blocks if added],
    }
    shares = {"out_pos_freq": np.abs(np.mean(masks, 0) - file["out_pos_freq"]).max() / 0.04}
    for key, limit in (("total", 0.05), ("blocks", 0.05), ("first_block", 0.10)):
        mean, std = file[f"out_{key}"][:2]
        shares[f"out_{key}"] = abs(np.mean(counted[key]) - mean) / (5 * std / p["draws"] ** 0.5)
        shares[f"out_{key}_hist"] = distance(np.bincount(counted[key]), file[f"out_{key}_hist"]) / limit
    assert shares.keys() == {key for key in file if key.startswith("out_")}
    for key, share in shares.items():
        error_table.record(name, float(share), 1.0)
        assert share <= 1, key
    assert max(counted["total"]) <= p["num_masking_patches"]


def test_relative_positions(precision, fixture_file, error_table) -> None:
    name = "beit_rel_pos"
    file = fixture_file(name)
    for window in file["params"]["windows"]:
        label = "x".join(map(str, window))
        module = timm_beit.RelativePositionBias(tuple(window), file["params"]["heads"]).to(getattr(torch, precision))
        index, key = module.relative_position_index, f"out_index_{label}"
        error_table.check(name, key, index, file[key], precision=precision)
        if f"in_table_{label}" in file:
            load(module, file, {"relative_position_bias_table": f"in_table_{label}"}, precision)
            error_table.check(name, f"out_bias_{label}", module(), file[f"out_bias_{label}"], precision=precision)
    checked = {f"out_{kind}_{'x'.join(map(str, w))}" for w in file["params"]["windows"] for kind in ("index", "bias")}
    assert {key for key in file if key.startswith("out_")} <= checked


def test_attention(precision, fixture_file, error_table) -> None:
    name = "beit_attention"
    file = fixture_file(name)
    p, window = file["params"], tuple(file["params"]["win"])
    attention = timm_beit.Attention(
        p["dim"], num_heads=p["heads"], qkv_bias=True, window_size=None if p["shared"] else window
    ).to(getattr(torch, precision))
    names = by_prefix(file, "in_")
    for key in ("x", "upstream", "shared_table"):
        names.pop(key, None)
    load(attention, file, names, precision)
    bias, parameters = None, dict(attention.named_parameters())
    if p["shared"]:
        shared = timm_beit.RelativePositionBias(window, p["heads"]).to(getattr(torch, precision))
        load(shared, file, {"relative_position_bias_table": "in_shared_table"}, precision)
        bias, parameters["shared_table"] = shared(), shared.relative_position_bias_table
    parameters["x"] = tensor(file, "in_x", precision).requires_grad_()
    y = attention(parameters["x"], shared_rel_pos_bias=bias)
    (y * tensor(file, "in_upstream", precision)).sum().backward()
    found = {"out_y": y} | {f"grad_{key}": parameter.grad for key, parameter in parameters.items()}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def test_pixels(precision, fixture_file, error_table) -> None:
    name = "beit_map_pixels"
    file = fixture_file(name)
    assert file["params"]["logit_laplace_eps"] == 0.1
    mapped = map_pixels(tensor(file, "in_x", precision))
    error_table.check(name, "out_mapped", mapped, file["out_mapped"], precision=precision)
    unmapped = unmap_pixels(tensor(file, "out_mapped", precision))
    error_table.check(name, "out_unmapped", unmapped, file["out_unmapped"], precision=precision)


def test_autoencoder(precision, fixture_file, error_table, monkeypatch) -> None:
    name = "beit_dvae"
    file = fixture_file(name)
    p = file["params"]
    images = tensor(file, "in_images", precision)
    side = p["image_size"] // 2 ** p["num_layers"]
    vae = DiscreteVAE(
        p["num_tokens"],
        grid=(side, side),
        levels=p["num_layers"],
        width=p["hidden_dim"],
        code_width=p["codebook_dim"],
        channels=images.shape[1],
        temperature=p["temp"],
        straight_through=p["st"],
    ).to(images.dtype)
    names = by_prefix(file, "in_")
    del names["images"], names["exponential"]
    load(vae, file, names, precision)
    reconstructions, logits = vae.reconstruct(images, tensor(file, "in_exponential", precision))
    distance = "smooth_l1" if p["smooth"] else "mse"
    loss = losses.dvae(images, reconstructions, logits, kl=p["kl"], distance=distance)["loss"]
    loss.backward()
    monkeypatch.setattr(vae, "prepare", lambda pixels: pixels)  # the file's images are prepared
    found = {
        "out_logits": logits,
        "out_codes": vae(images),
        "out_probs": logits.softmax(1),
        "out_recons": reconstructions,
        "out_loss": loss,
    }
    found |= {f"grad_{key}": parameter.grad for key, parameter in vae.named_parameters()}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def own_name(key: str) -> str:
    """Our name of one of the official parameters."""
    if key == "mask_token":
        return "network.mask_token"
    if key.startswith("lm_head."):
        return key.replace("lm_head", "head")
    return "network.backbone." + ("fc_" + key if key.startswith("norm.") else key)


def build(file: dict, precision: str) -> nn.Module:
    """The method with the sizes and weights of the file."""
    p = file["params"]
    vit = timm.create_model(
        "beit_base_patch16_224",
        img_size=p["img"],
        patch_size=p["patch"],
        embed_dim=p["dim"],
        depth=p["depth"],
        num_heads=p["heads"],
        mlp_ratio=p["mlp_ratio"],
        init_values=p["init_values"],
        use_abs_pos_emb=p["absp"],
        use_rel_pos_bias=p["perblock"],
        use_shared_rel_pos_bias=p["shared"],
        num_classes=0,
    )
    method = get("beit")(vit, codes=p["vocab"]).to(getattr(torch, precision))
    buffers = dict(method.named_buffers())
    names = by_prefix(file, "in_", own_name)
    for key in ("images", "mask", "codes"):
        del names[own_name(key)]
    for own in [own for own in names if own.endswith("relative_position_index")]:
        assert torch.equal(buffers[own], tensor(file, names.pop(own)))
    return load(method, file, names, precision)


class Given(nn.Module):
    """A tokenizer whose codes are given."""

    is_trained = False

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.codes


def train(method: nn.Module, file: dict, precision: str) -> dict:
    """All steps of the file: what it holds of them, by its keys."""
    p = file["params"]
    # The horizon of the rate is not in the file, its values are; test_schedules.py has the curve.
    schedule = lambda progress: file["out_lr"][progress.step] / p["lr"]  # noqa: E731
    rates = Optimization("adamw", p["lr"], p["wd"], 256, 1, schedule, no_decay=method.published.no_decay)
    optimizer = build_optimizer(method, rates)
    parameters, gradients = dict(method.named_parameters()), by_prefix(file, "grad_", own_name)
    assert set(gradients) == set(parameters)
    keys = ("out_loss", "out_mlm_acc", "out_grad_norm", "out_lr")
    found: dict[str, list] = {key: [] for key in (*keys, *gradients.values())}
    logits = {}
    method.head.register_forward_hook(lambda module, given, output: logits.update({f"out_logits_s{step}": output}))
    for step in range(p["S"]):
        method.draw_masks = lambda pictures, step=step: tensor(file, "in_mask")[step].flatten(1).bool()
        method.tokenizer.codes = tensor(file, "in_codes")[step].flatten(1)
        progress = Progress(step, p["S"])
        batch = Batch([tensor(file, "in_images", precision)[step]], torch.arange(p["B"]), progress=progress)
        optimizer.zero_grad()
        given = method(batch)
        given.loss.backward()
        for own, key in gradients.items():
            found[key].append(parameters[own].grad.clone())
        norm = torch.stack([parameter.grad.norm() for parameter in parameters.values()]).norm()
        set_rates(optimizer, rates, progress)
        rate = torch.tensor(optimizer.param_groups[0]["lr"])
        for key, value in zip(keys, (given.loss.detach(), given.terms["accuracy"], norm, rate), strict=True):
            found[key].append(value)
        method.before_step(progress)
        after = torch.stack([parameter.grad.norm() for parameter in parameters.values()]).norm()
        torch.testing.assert_close(after, norm.clamp_max(p["clip"]), rtol=1e-5, atol=0)
        optimizer.step()
        method.after_step(progress)
    return {key: torch.stack(values) for key, values in found.items()} | logits


def test_training_steps(precision, fixture_file, error_table, monkeypatch) -> None:
    name = "beit_train"
    file = fixture_file(name)
    monkeypatch.setattr("fullrank.methods.beit.CLIP", file["params"]["clip"])
    method = build(file, precision)
    method.tokenizer = Given()
    found = train(method, file, precision)
    state = method.state_dict()
    weights = {key: state[own] for own, key in by_prefix(file, "out_", own_name).items() if own in state}
    assert not found.keys() & weights.keys()
    found |= weights
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    assert len(weights) == len(dict(method.named_parameters()))
    accuracy = np.abs(as_array(found.pop("out_mlm_acc")) - file["out_mlm_acc"]).max()
    assert accuracy < 1e-6, "the official meter is float32"
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)
