"""MAE: patches, random masks, the loss, and the whole network through the method."""

import pytest
import timm
import torch
from torch import nn

from fullrank import distributed, losses
from fullrank.methods import Batch, get
from fullrank.networks import patchify, standardise_patches, unpatchify
from fullrank.networks.vit import take
from fullrank.views.masks import random_masks
from tests.reference.state import by_prefix, load, tensor


def test_patches(precision, fixture_file, error_table) -> None:
    name = "mae_patchify"
    file = fixture_file(name)
    side, patch = file["params"]["img"], file["params"]["p"]
    patches = patchify(tensor(file, "in_images", precision), (patch, patch))
    error_table.check(name, "out_patches", patches, file["out_patches"], precision=precision)
    images = unpatchify(patches, (patch, patch), (side // patch, side // patch))
    error_table.check(name, "out_roundtrip", images, file["out_roundtrip"], precision=precision)


@pytest.mark.parametrize("number", range(3))
def test_random_masks(number, precision, fixture_file, error_table) -> None:
    name = f"mae_random_masking_{number}"
    file = fixture_file(name)
    keep, hidden, places = random_masks(tensor(file, "in_noise", precision), file["params"]["r"])
    assert keep.shape[1] == file["params"]["len_keep"]
    found = {
        "out_x_masked": take(tensor(file, "in_x", precision), keep),
        "out_mask": torch.zeros_like(places).scatter(1, hidden, 1),
        "out_ids_restore": places,
    }
    assert found.keys() == {key for key in file if key.startswith("out_")}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)


@pytest.mark.parametrize("number", range(2))
def test_loss(number, precision, fixture_file, error_table) -> None:
    name = f"mae_loss_{number}"
    file = fixture_file(name)
    p = file["params"]
    targets = patchify(tensor(file, "in_images", precision), (p["p"], p["p"]))
    if p["norm_pix_loss"]:
        targets = standardise_patches(targets, p["eps"])
    predictions = tensor(file, "in_pred", precision).requires_grad_()
    loss = losses.mae(predictions, targets, tensor(file, "in_mask").bool())["loss"]
    loss.backward()
    error_table.check(name, "out_loss", loss, file["out_loss"], precision=precision)
    error_table.check(name, "grad_pred", predictions.grad, file["grad_pred"], precision=precision)


def own_name(key: str) -> str:
    """Our name of one of the official parameters."""
    key = key.replace("decoder_pred.", "decoder.head.").replace("decoder_embed.", "decoder.embed.")
    key = key.replace("decoder_pos_embed", "decoder.positions").replace("decoder_", "decoder.")
    key = key.replace("mask_token", "decoder.mask_token")
    return key if key.startswith("decoder.") else f"network.backbone.{key}"


def build(file: dict, precision: str) -> nn.Module:
    """The method with the sizes and weights of the file."""
    p = file["params"]
    sizes = {"img_size": p["img"], "patch_size": p["p"], "embed_dim": p["dim"], "depth": p["depth"]}
    vit = timm.create_model(
        "vit_small_patch16_224", **sizes, num_heads=p["heads"], mlp_ratio=p["mlp_ratio"], num_classes=0
    )
    decoder = {"decoder_width": p["ddim"], "decoder_depth": p["ddepth"], "decoder_heads": p["dheads"]}
    method = get("mae")(vit, mask_ratio=p["r"], norm_pix=p["norm"], **decoder).to(getattr(torch, precision))
    names = by_prefix(file, "in_", own_name)
    for given in ("images", "noise"):
        del names[own_name(given)]
    return load(method, file, names, precision)


@pytest.mark.parametrize("number", range(2))
def test_network(number, precision, fixture_file, error_table, monkeypatch) -> None:
    name = f"mae_model_{number}"
    file = fixture_file(name)
    method = build(file, precision)
    noise = tensor(file, "in_noise", precision)
    monkeypatch.setattr(distributed, "draw_rows", lambda rows, draw: noise)
    seen = {}
    method.network.register_forward_hook(lambda module, given, tokens: seen.update(latent=tokens))
    method.decoder.register_forward_hook(
        lambda module, given, pixels: seen.update(places=given[1], asked=given[2], predictions=pixels)
    )
    step = method(Batch([tensor(file, "in_images", precision)], torch.arange(len(noise))))
    step.loss.backward()
    hidden, drawn = seen["asked"], seen["predictions"]  # the method has the hidden patches drawn, the fixture all
    found = {
        "out_loss": step.loss,
        "out_latent": seen["latent"],
        "out_pred": method.decoder(seen["latent"], seen["places"], None),
        "out_ids_restore": seen["places"],
        "out_mask": torch.zeros_like(seen["places"]).scatter(1, hidden, 1),
    }
    torch.testing.assert_close(drawn, take(found["out_pred"], hidden))
    torch.testing.assert_close(step.representations[0], seen["latent"][:, 0])
    parameters = dict(method.named_parameters())
    gradients = by_prefix(file, "grad_", own_name)
    assert set(gradients) == {own for own, parameter in parameters.items() if parameter.requires_grad}
    found |= {key: parameters[own].grad for own, key in gradients.items()}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key], precision=precision)
