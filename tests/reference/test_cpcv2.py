"""CPC v2: context network and loss by the appendix and by two re-implementations, and the order of the patches."""

import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, get
from fullrank.networks import ContextNetwork, RowPredictor
from fullrank.views import View
from fullrank.views.puzzle import cut, draw_corners
from tests.reference.state import tensor

LAYERS = {"a": 0, "b": 2, "c": 4, "d": 6}  # of a block


class Direction(nn.Module):
    """What the method holds for one direction, with the file's weights: latents (n, h, w, c) -> terms of the loss.

    `heads` are the file's names of the linear predictions, one a number of rows; a name that repeats is one layer.
    """

    def __init__(self, file: dict, rows: list[int], heads: list[str]) -> None:
        super().__init__()
        p = file["params"]
        width, scale = p["target_dim"], p.get("emb_scale", p.get("embed_scale"))
        options = {"scale": scale, "hidden": p["hidden"], "blocks": p["blocks"]}
        self.predictor = RowPredictor(p["C"], width, rows, **options).double()
        self.target = nn.Linear(p["C"], width).double()
        distinct = dict(zip(heads, self.predictor.heads, strict=True))
        self.predictor.heads = nn.ModuleList(distinct[head] for head in heads)
        layers = {**distinct, "target": self.target}
        for number, block in enumerate(self.predictor.context.blocks):
            layers |= {f"ctx{number}_{name}": block[place] for name, place in LAYERS.items()}
        self.named = {f"{name}_w": layer.weight for name, layer in layers.items()}
        self.named |= {f"{name}_b": layer.bias for name, layer in layers.items()}
        assert {id(value) for value in self.named.values()} == {id(value) for value in self.parameters()}
        for name, parameter in self.named.items():
            parameter.data = tensor(file, f"in_{name}").view_as(parameter)

    def forward(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return losses.cpc(self.predictor(latents), self.target(latents))

    def context(self, latents: torch.Tensor) -> torch.Tensor:
        return self.predictor.context(latents.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def gradients(self) -> dict[str, torch.Tensor]:
        return {f"grad_{name}": parameter.grad for name, parameter in self.named.items()}


def compare(error_table, name: str, file: dict, found: dict) -> None:
    """Every output and gradient of the file; what no part of the loss reaches has a gradient of zero there."""
    for key in file:
        if key.startswith("grad_") and key not in found:
            assert not file[key].any(), f"{name}: nothing here gives {key}"
            found[key] = torch.zeros(file[key].shape)
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value.reshape(file[key].shape), file[key])


def test_appendix(fixture_file, error_table) -> None:
    name = "cpcv2_appendix"
    file = fixture_file(name)
    p, latents = file["params"], tensor(file, "in_latents")

    def direction(*indices: int) -> Direction:
        return Direction(file, [index + 1 for index in indices], [f"pred{index}" for index in indices])

    every = direction(*range(p["H"] - 1))
    terms = every(latents)
    found = {"out_context": every.context(latents)}
    found["out_loss_i"] = torch.stack([terms[f"rows_{index + 1}"] for index in range(p["H"] - 1)])
    first, second = p["steps_to_ignore"], p["steps_to_predict"]
    found["out_loss_literal"] = direction(*range(first, second))(latents)["loss"]
    extended = direction(*range(first, min(first + second, p["H"] - 1)))  # `steps_to_predict` is their number
    found["out_loss_extended"] = extended(latents.requires_grad_())["loss"]
    found["out_loss_extended"].backward()
    compare(error_table, name, file, found | {"grad_latents": latents.grad} | extended.gradients())


class CourseContext(ContextNetwork):
    """The network of the course: one more ReLU after the 1x3 convolution, and one after every sum."""

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            grid = (grid + block[3:](block[:3](grid).relu())).relu()
        return grid


def test_course_code(fixture_file, error_table) -> None:
    name = "cpcv2_cs294"
    file = fixture_file(name)
    p, latents = file["params"], tensor(file, "in_latents").permute(0, 2, 3, 1).requires_grad_()
    first, count = p["steps_to_ignore"], p["steps_to_predict"]
    rows = [first + number + 1 for number in range(count)]
    direction = Direction(file, rows, [f"pred{number}" for number in range(count)])
    direction.predictor.context.__class__ = CourseContext
    found = {"out_loss": direction(latents)["loss"], "out_context": direction.context(latents).permute(0, 3, 1, 2)}
    found["out_loss"].backward()
    found["grad_latents"] = latents.grad.permute(0, 3, 1, 2)
    compare(error_table, name, file, found | direction.gradients())


def test_bolts(fixture_file, error_table) -> None:
    """Lightning-bolts' defects: ones above the grid, the side padding in the wrong place, one prediction for all
    numbers of rows, whose losses are weighted by their number."""
    name = "cpcv2_bolts"
    file = fixture_file(name)
    p, latents = file["params"], tensor(file, "in_latents").permute(0, 2, 3, 1).requires_grad_()
    direction = Direction(file, list(range(1, p["H"])), ["pred"] * (p["H"] - 1))
    for block in direction.predictor.context.blocks:
        block[2].padding, block[3].value, block[4].padding = (0, 0), 1.0, (0, 1)
    terms = direction(latents)
    found = {"out_loss_i": torch.stack([terms[f"rows_{row}"] for row in range(1, p["H"])])}
    found["out_loss"] = (torch.arange(p["H"] - 1) * found["out_loss_i"]).sum()
    found["out_loss"].backward()
    found["out_context"] = direction.context(latents).permute(0, 3, 1, 2)
    found["grad_latents"] = latents.grad.permute(0, 3, 1, 2)
    compare(error_table, name, file, found | direction.gradients())


class Vectors(nn.Module):
    """A backbone that takes a patch of one pixel to be its vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1)


def test_method_adds_up_its_directions(fixture_file, error_table) -> None:
    """A square part of the file's latents through the method; each direction is the appendix on a turned grid."""
    file = fixture_file("cpcv2_appendix")
    p, side = file["params"], min(file["params"]["H"], file["params"]["W"])
    grid = tensor(file, "in_latents")[:, :side, :side]
    index = side - 2  # from the first row to the last
    turns = (0, 2, 1, 3)
    method = get("cpcv2")(
        Vectors(p["C"]),
        steps_to_ignore=index,
        steps_to_predict=1,
        directions=len(turns),
        target_dim=p["target_dim"],
        emb_scale=p["emb_scale"],
        context_width=p["hidden"],
        context_blocks=p["blocks"],
    ).double()
    direction = Direction(file, [index + 1], [f"pred{index}"])
    method.network.projector.load_state_dict(direction.target.state_dict())
    for predictor in method.predictors:
        predictor.load_state_dict(direction.predictor.state_dict())
    view = grid.flatten(1, 2)[..., None, None]  # (n, k, c, 1, 1)
    step = method(Batch([view], torch.arange(len(view))))
    expected = sum(direction(grid.rot90(turn, (1, 2)))["loss"] for turn in turns)
    torch.testing.assert_close(step.loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(step.representations[0], grid.mean((1, 2)))


def patches_of(images: torch.Tensor, piece: int, stride: int) -> torch.Tensor:
    """As many patches as fit, in row-major order, cut as a view is."""
    rows, columns = ((side - piece) // stride + 1 for side in images.shape[2:])
    grid = max(rows, columns)
    view = View(piece + (grid - 1) * stride, grid=grid, piece=piece, shuffle=False)
    corners = draw_corners(view, len(images))
    inside = (corners[0] <= torch.tensor([(rows - 1) * stride, (columns - 1) * stride])).all(1)
    return cut(images, corners[:, inside], piece)


def test_patches_in_order(fixture_file, error_table) -> None:
    name = "cpcv2_patchify"
    file = fixture_file(name)
    p = file["params"]
    found = patches_of(tensor(file, "in_img")[None], p["patch"], p["overlap"])[0]
    error_table.check(name, "out_patches", found, file["out_patches"])
    # The course's grid on a picture whose pixels are their numbers: the first and last pixel of every patch.
    pixels = torch.arange(256 * 256).view(1, 1, 256, 256)
    first_and_last = patches_of(pixels, 64, 32)[0].flatten(1)[:, [0, -1]]
    error_table.check(name, "out_cs294_corners", first_and_last, file["out_cs294_corners"])
