"""The squares that a puzzle is cut into, which the authors' codes loop over by columns (PIRL) or by rows (InfoMin)."""

import numpy as np
import torch

from fullrank.views.puzzle import cut


def test_by_columns(fixture_file, error_table) -> None:
    file = fixture_file("jigsaw_crop_vissl")
    image = torch.as_tensor(file["in_img"])
    side = round(file["params"]["num_patches"] ** 0.5)
    cell = image.shape[1] // side
    column, row = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    x, y = file["in_jitter"][0] + cell * column, file["in_jitter"][1] + cell * row
    corners = torch.as_tensor(np.stack([y.ravel(), x.ravel()], 1))
    pieces = cut(image[None], corners[None], cell - file["params"]["patch_jitter"])[0]
    error_table.check("jigsaw_crop_vissl", "out_patches", pieces, file["out_patches"])


def test_by_rows(fixture_file, error_table) -> None:
    file = fixture_file("jigsaw_crop_pycontrast")
    image = torch.as_tensor(file["in_img"]).permute(2, 0, 1)
    side = file["params"]["n_grid"]
    cell = file["params"]["img_size"] // side
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    corners = np.stack([cell * row.ravel() + file["in_r_x"], cell * column.ravel() + file["in_r_y"]], 1)
    pieces = cut(image[None], torch.as_tensor(corners)[None], file["params"]["crop_size"])[0]
    error_table.check("jigsaw_crop_pycontrast", "out_crops", pieces.permute(0, 2, 3, 1), file["out_crops"])
