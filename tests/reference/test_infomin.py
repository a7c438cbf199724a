"""InfoMin: the blur and the levels of its policy, the loss, and steps with its queue through the method."""

import numpy as np
import torch
from torch import nn

from fullrank.methods import get
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


def test_steps(fixture_file, error_table, logits) -> None:
    name = "infomin_moco_jigsaw"
    file = fixture_file(name)
    p = file["params"]
    backbone = nn.Linear(1, 1)
    backbone.num_features = p["D"]
    options = {"temperature": p["T"], "queue": p["K"], "puzzle_weight": p["beta"]}
    method = get("infomin")(backbone, projector="none", **options).double()
    method.queue.rows.copy_(tensor(file, "in_queue"))
    weights, found = method.weights, {}
    for step in range(p["steps"]):
        given = {key: tensor(file, f"in_{key}_{step}").requires_grad_() for key in ("q", "q_jig")}
        terms = method.contrast(given["q"], given["q_jig"], tensor(file, f"in_k_{step}"))
        loss = sum(weights[part] * term for part, term in terms.items())
        loss.backward()
        found |= {
            f"out_logits_{step}": logits[-2],
            f"out_logits_jig_{step}": logits[-1],
            f"out_loss_{step}": loss,
            f"out_loss_image_{step}": terms["image"],
            f"out_loss_jigsaw_{step}": terms["puzzle"],
            f"out_queue_{step}": method.queue.rows.clone(),
            **{f"grad_{key}_{step}": rows.grad for key, rows in given.items()},
        }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])
    error_table.check(name, "final_pointer", method.queue.pointer, p["final_pointer"])
