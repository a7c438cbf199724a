"""I-JEPA: block masks, targets and loss, and whole training steps through the method."""

import itertools
import math

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, Optimization, get
from fullrank.networks.masked import block_targets
from fullrank.networks.vit import take
from fullrank.schedules import Progress, Schedule
from fullrank.training.optimizer import build_optimizer, set_rates
from fullrank.views.masks import Draws, block_size, cut_to_shortest, place_blocks, size_draws
from tests.reference.conftest import as_array
from tests.reference.state import by_prefix, load, tensor


class Recorded(Draws):
    """The corners that the authors' code drew, with the bounds that it drew them below."""

    def __init__(self, corners: np.ndarray, bounds: np.ndarray) -> None:
        self.left = list(zip(corners.ravel().tolist(), bounds.ravel().tolist(), strict=True))

    def below(self, bound: int) -> int:
        value, recorded = self.left.pop(0)
        assert bound == recorded
        return value


def grid_of(p: dict) -> tuple[int, int]:
    return p["input_size"][0] // p["patch_size"], p["input_size"][1] // p["patch_size"]


def sizes(p: dict, u_target: float, u_context: float) -> dict:
    """What `place_blocks` is told of one batch."""
    return {
        "target": block_size(u_target, grid_of(p), p["pred_mask_scale"], p["aspect_ratio"]),
        "context": block_size(u_context, grid_of(p), p["enc_mask_scale"], (1.0, 1.0)),
        "targets": p["npred"],
        "contexts": p["nenc"],
        "min_keep": p["min_keep"],
        "overlap": p["allow_overlap"],
    }


@pytest.mark.parametrize("number", range(2))
def test_masks_from_recorded_draws(number, fixture_file, error_table) -> None:
    name = f"ijepa_mask_exact_{number}"
    file = fixture_file(name)
    p = file["params"]
    found = {}
    for call in range(p["calls"]):
        draws = Recorded(file[f"in_topleft_c{call}"], file[f"in_highs_c{call}"])
        u = file[f"in_rand_c{call}"].tolist()
        blocks = place_blocks(p["batch"], grid_of(p), **sizes(p, *u), draws=draws)
        assert not draws.left, "every recorded draw is used"
        seen, asked = (cut_to_shortest(each).transpose(0, 1) for each in blocks)
        found |= {f"out_enc_c{call}": seen, f"out_pred_c{call}": asked}
    assert found.keys() == {key for key in file if key.startswith("out_")}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])


def summary(values: list[float]) -> list[float]:
    return [float(statistic(values)) for statistic in (np.mean, np.std, np.min, np.max)]


def collect(p: dict) -> dict:
    """As many batches as the file has, from our own draws; what the file counts of the authors'."""
    grid = grid_of(p)
    patches = math.prod(grid)
    counts = {"ctx": np.zeros(patches), "tgt": np.zeros(patches), "topleft": np.zeros(patches)}
    lists: dict[str, list] = {"pred": [], "enc": [], "before": [], "after": [], "union": [], "iou": []}
    overlap = 0
    torch.manual_seed(0)
    draws = Draws()
    for call in range(p["calls"]):
        chosen = sizes(p, *size_draws(call))
        lists["pred"].append(chosen["target"])
        lists["enc"].append(chosen["context"])
        contexts, targets = place_blocks(p["batch"], grid, **chosen, draws=draws)
        lists["before"] += [len(context) for picture in contexts for context in picture]
        seen, asked = cut_to_shortest(contexts).numpy(), cut_to_shortest(targets).numpy()
        lists["after"] += [seen.shape[2]] * p["batch"]
        for mine, theirs in zip(seen, asked, strict=True):
            np.add.at(counts["ctx"], mine, 1)
            np.add.at(counts["tgt"], theirs, 1)
            np.add.at(counts["topleft"], theirs[:, 0], 1)
            union = set(theirs.ravel())
            lists["union"].append(len(union))
            overlap += sum(len(union & set(context)) for context in mine)
            for one, two in itertools.combinations(map(set, theirs), 2):
                lists["iou"].append(len(one & two) / len(one | two))
    pictures = p["calls"] * p["batch"]
    return {
        "out_pred_hw": lists["pred"],
        "out_enc_hw": lists["enc"],
        "out_overlap_ctx_tgt": overlap,
        "out_ctx_len_pre": summary(lists["before"]),
        "out_ctx_len": summary(lists["after"]),
        "out_ctx_len_hist": np.bincount(lists["after"], minlength=patches + 1),
        "out_union": summary(lists["union"]),
        "out_tgt_pair_iou": summary(lists["iou"]),
        "out_pos_freq_ctx": (counts["ctx"] / pictures).reshape(grid),
        "out_pos_freq_tgt": (counts["tgt"] / pictures).reshape(grid),
        "out_tgt_topleft_counts": counts["topleft"].reshape(grid),
    }


@pytest.mark.parametrize("name", ["ijepa_mask_stats_p14_224", "ijepa_mask_stats_p16_224"])
def test_statistics_of_our_draws(name, fixture_file, error_table) -> None:
    """The tolerances are the words of the index; the table shows the largest share of one."""
    file = fixture_file(name)
    p = file["params"]
    found = collect(p)
    assert found.keys() == {key for key in file if key.startswith("out_")}
    for key in ("out_pred_hw", "out_enc_hw", "out_overlap_ctx_tgt"):
        np.testing.assert_array_equal(found[key], file[key])
    shares = {}
    for key in ("out_ctx_len_pre", "out_ctx_len", "out_union", "out_tgt_pair_iou"):
        # Pictures of a batch are correlated: n is the number of batches.
        mean, std = file[key][:2]
        shares[key] = abs(found[key][0] - mean) / (5 * std / p["calls"] ** 0.5)
    for key, limit in (("out_pos_freq_ctx", 0.05), ("out_pos_freq_tgt", 0.10)):
        shares[key] = np.abs(found[key] - file[key]).max() / limit
    key = "out_tgt_topleft_counts"
    ours, theirs = (counts / counts.sum() for counts in (found[key], file[key]))
    shares[key] = np.abs(ours - theirs).sum() / 2 / 0.12
    for key, share in shares.items():
        error_table.record(name, share, 1.0)
        assert share <= 1, key
    # The index gives no limit for the histogram of lengths, whose mean and range are judged above.
    assert found["out_ctx_len_hist"].sum() == file["out_ctx_len_hist"].sum()
    # The last row and column are in no block.
    assert not any(found[key][-1].any() or found[key][:, -1].any() for key in ("out_pos_freq_ctx", "out_pos_freq_tgt"))


def test_targets_and_loss(precision, fixture_file, error_table) -> None:
    name = "ijepa_targets_loss"
    file = fixture_file(name)
    tokens = tensor(file, "in_h", precision)
    seen, asked = (tensor(file, f"in_masks_{kind}").flatten(0, 1) for kind in ("enc", "pred"))
    targets = block_targets(tokens, asked, len(seen) // len(tokens))
    predictions = tensor(file, "in_z", precision).requires_grad_()
    loss = losses.ijepa(predictions, targets)["loss"]
    loss.backward()
    found = {"out_ctx": take(tokens, seen), "out_targets": targets, "out_loss": loss, "grad_z": predictions.grad}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


def own_name(key: str) -> str:
    """Our name of one of the official parameters."""
    part, _, rest = key.partition("_")
    if part != "predictor":
        return {"encoder": "network.backbone.", "target": "target.copy.backbone."}[part] + rest
    rest = rest.replace("predictor_pos_embed", "positions").replace("predictor_proj", "head")
    return "predictor." + rest.replace("predictor_", "")


def build(file: dict, precision: str) -> nn.Module:
    """The method with the sizes and weights of the file."""
    p, kind = file["params"], get("ijepa")
    vit = timm.create_model(
        "vit_small_patch16_224",
        img_size=p["img"],
        patch_size=p["patch"],
        embed_dim=p["dim"],
        depth=p["depth"],
        num_heads=p["heads"],
        mlp_ratio=p["mlp_ratio"],
        num_classes=0,
        **kind.backbone_options,
    )
    sizes = {"predictor_width": p["pdim"], "predictor_depth": p["pdepth"]}
    method = kind(vit, momentum=p["ema"][0], contexts=p["nenc"], targets=p["npred"], min_keep=0, **sizes)
    assert p["pred_heads"] == method.network.heads
    method.momentum = tuple(p["ema"])
    names = by_prefix(file, "in_encoder_", lambda key: own_name(f"encoder_{key}"))
    names |= by_prefix(file, "in_encoder_", lambda key: own_name(f"target_{key}"))
    names |= by_prefix(file, "in_predictor_", lambda key: own_name(f"predictor_{key}"))
    return load(method.to(getattr(torch, precision)), file, names, precision)


def optimization(p: dict) -> Optimization:
    warmup, lr, (decay, last_decay) = p["lr"]["warmup_steps"] / p["ipe"], p["lr"], p["wd"]
    schedule = Schedule(warmup, lr["start"] / lr["ref"], lr["final"] / lr["ref"], first_step=1)
    return Optimization("adamw", lr["ref"], decay, 256, p["epochs"], schedule, weight_decay_end=last_decay)


def train(method: nn.Module, file: dict, precision: str) -> dict:
    """All steps of the file: what it holds of them, by its keys."""
    p, rates = file["params"], optimization(file["params"])
    optimizer = build_optimizer(method, rates)
    parameters, gradients = dict(method.named_parameters()), by_prefix(file, "grad_", own_name)
    assert set(gradients) == {own for own, parameter in parameters.items() if parameter.requires_grad}
    found: dict[str, list] = {key: [] for key in ("out_loss", "out_lr", "out_wd", *gradients.values())}
    passes: dict[str, torch.Tensor] = {}
    for module, key in ((method.network, "out_context"), (method.predictor, "out_pred")):
        module.register_forward_hook(lambda module, given, output, key=key: passes.update({f"{key}_s{step}": output}))
    for step in range(p["S"]):
        masks = [tensor(file, f"in_masks_{kind}_s{step}").flatten(0, 1) for kind in ("enc", "pred")]
        method.draw_masks = lambda pictures, progress, masks=masks: masks
        # The horizon of rates and momentum is `ipe_scale` times the run.
        progress = Progress(step, p["epochs"] * p["ipe"] * p["ipe_scale"], p["ipe"])
        batch = Batch([tensor(file, f"in_images_s{step}", precision)], torch.arange(p["B"]), progress=progress)
        optimizer.zero_grad()
        loss = method(batch).loss
        loss.backward()
        set_rates(optimizer, rates, progress)
        decayed = next(group for group in optimizer.param_groups if group["decays"])
        found["out_loss"].append(loss.detach())
        found["out_lr"].append(torch.tensor(decayed["lr"]))
        found["out_wd"].append(torch.tensor(decayed["weight_decay"]))
        for own, key in gradients.items():
            found[key].append(parameters[own].grad.clone())
        method.before_step(progress)
        optimizer.step()
        method.after_step(progress)
    return {key: torch.stack(values) for key, values in found.items()} | passes


def test_training_steps(precision, fixture_file, error_table) -> None:
    name = "ijepa_train"
    file = fixture_file(name)
    method = build(file, precision)
    found, state = train(method, file, precision), method.state_dict()
    keys = [key for key in file if key.startswith(("out_encoder_", "out_target_", "out_predictor_"))]
    weights = {key: state[own_name(key.removeprefix("out_"))] for key in keys}
    assert (found | weights).keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    if precision == "float64":
        for key, value in (found | weights).items():
            error_table.check(name, key, value, file[key])
        return
    # The words of the index: losses, predictions and gradients of step 0 at rtol 1e-4 and atol 2e-5, no later weights.
    for key in [key for key in found if key == "out_loss" or key.startswith(("out_context", "out_pred", "grad_"))]:
        ours, theirs = (as_array(each[0] if key.startswith("grad_") else each) for each in (found[key], file[key]))
        share = float((np.abs(ours - theirs) / (np.abs(theirs) + 2e-5 / 1e-4)).max())
        error_table.record(name, share, 1e-4, precision=precision)
        assert share <= 1e-4, key
