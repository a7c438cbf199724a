"""InfoMin: the blur and the levels of its policy, the loss, and steps with its queue through the method."""

import numpy as np
import torch

from fullrank.views.filters import gaussian_matrix
from fullrank.views.rand_augment import ARGUMENTS, OPERATIONS
from tests.reference.state import tensor


def test_blur(precision, fixture_file, error_table) -> None:
    file = fixture_file("infomin_blur")
    image, sigma = tensor(file, "in_img", precision), tensor(file, "in_sigma", precision).view(1)
    taps = 2 * (file["params"]["kernel_size"] // 2) + 1
    rows, columns = (gaussian_matrix(sigma, taps, side, torch.device("cpu"))[0] for side in image.shape[1:])
    error_table.check("infomin_blur", "out_img", rows @ image @ columns.T, file["out_img"], precision=precision)


def test_levels_of_rand_augment(fixture_file, error_table) -> None:
    file = fixture_file("infomin_randaugment_levels")
    assert list(OPERATIONS) == file["params"]["ops"]
    outputs = [key for key in file if key.startswith("out_")]
    for key in outputs:
        ours = ARGUMENTS[key.removeprefix("out_")](tensor(file, "in_level"))
        error_table.check("infomin_randaugment_levels", key, ours, file[key])
    assert {key.removeprefix("out_") for key in outputs} == {
        name for name in OPERATIONS if np.any(ARGUMENTS[name](torch.ones(1)).numpy())
    } | {"PosterizeTpu"}
