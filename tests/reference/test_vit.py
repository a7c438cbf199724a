"""Vision transformers in pieces: positions at other sizes, fixed positions, class token and blocks."""

import pytest
import timm
import torch

from fullrank.networks import vit
from tests.reference.state import load, tensor


def build(file: dict, precision: str = "float64", **options) -> torch.nn.Module:
    """timm's network with the sizes and weights of the file."""
    p = file["params"]
    model = timm.create_model(
        "vit_small_patch16_224",
        img_size=p["img"],
        patch_size=p.get("patch", p.get("p")),
        embed_dim=p["dim"],
        depth=p["depth"],
        num_heads=p["heads"],
        mlp_ratio=p["mlp_ratio"],
        num_classes=0,
        dynamic_img_size=True,
        **options,
    ).to(getattr(torch, precision))
    return load(model, file, {key: f"in_{key}" for key, _ in model.named_parameters()}, precision)


def test_positions_at_other_sizes(fixture_file, error_table) -> None:
    file = fixture_file("dino_pos_interp")
    p = file["params"]
    table = tensor(file, "in_pos_embed")
    for height, width in p["sizes"]:
        grid = (height // p["patch"], width // p["patch"])
        patches = table[:, 1:]
        if grid != (p["grid"], p["grid"]):
            patches = vit.resize_positions(patches, (p["grid"], p["grid"]), grid, "dino")
        ours = torch.cat([table[:, :1], patches], 1)
        error_table.check("dino_pos_interp", f"out_{height}x{width}", ours, file[f"out_{height}x{width}"])


def test_positions_of_a_checkpoint(fixture_file, error_table) -> None:
    file = fixture_file("mae_pos_interp")
    p, table = file["params"], tensor(file, "in_pos_embed")
    patches = vit.resize_positions(table[:, 1:], (p["old"], p["old"]), (p["new"], p["new"]), "mae")
    ours = torch.cat([table[:, :1], patches], 1)
    error_table.check("mae_pos_interp", "out_pos_embed", ours, file["out_pos_embed"])


@pytest.mark.parametrize("name", ["mae_pos_embed", "ijepa_pos_embed"])
def test_fixed_positions(name, fixture_file, error_table) -> None:
    file = fixture_file(name)
    for width, grid, *token in file["params"]["cases"]:
        ours = vit.sincos_positions(width, (grid, grid))
        if any(token):
            ours = torch.cat([torch.zeros(1, width), ours])
        key = f"out_{width}_{grid}" + "".join(f"_{int(given)}" for given in token)
        error_table.check(name, key, ours, file[key])


def test_class_token_at_two_sizes(precision, fixture_file, error_table) -> None:
    file = fixture_file("dino_vit")
    model = build(file, precision)
    for size in file["params"]["sizes"]:
        tokens = vit.embed_patches(model, tensor(file, f"in_image_{size}", precision))
        error_table.check(
            "dino_vit", f"out_cls_{size}", vit.encode(model, tokens)[:, 0], file[f"out_cls_{size}"], precision=precision
        )
        outputs = []
        for block in model.blocks:
            tokens = block(tokens)
            outputs.append(model.norm(tokens))
        key = f"out_inter2_{size}"
        error_table.check("dino_vit", key, torch.stack(outputs[-2:]), file[key], precision=precision)


def test_frozen_features(precision, fixture_file, error_table) -> None:
    """MAE's two kinds of features: the class token after the norm; the mean of the patches, then the norm."""
    file = fixture_file("mae_features")
    images = tensor(file, "in_images", precision)
    model = build(file, precision)
    error_table.check("mae_features", "out_cls", model(images), file["out_cls"], precision=precision)
    tokens = model.blocks(vit.embed_patches(model, images))
    mean = model.norm(tokens[:, 1:].mean(1))
    error_table.check("mae_features", "out_gap", mean, file["out_gap"], precision=precision)
