"""CPC's context network: what each place sees, and which rows are predicted."""

import pytest
import torch

from fullrank.networks import ContextNetwork, RowPredictor


def seen_from(network, row, column, size=9):
    """Which places of the grid (rows, columns) the context at one place depends on."""
    grid = torch.randn(1, 4, size, size, requires_grad=True)
    network(grid)[0, :, row, column].sum().backward()
    return grid.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_context_sees_its_row_and_one_more_row_above_for_every_block(blocks):
    torch.manual_seed(0)
    network = ContextNetwork(4, hidden=8, blocks=blocks)
    seen = sum(seen_from(network, 5, 4).int() for _ in range(8)) > 0  # a ReLU may hide some of it
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[5 - blocks : 6, 4 - blocks : 5 + blocks] = True
    assert torch.equal(seen, expected)


def test_the_first_row_sees_zeros_above_it():
    network = ContextNetwork(4, hidden=8, blocks=1)
    block = network.blocks[0]
    grid = torch.randn(1, 4, 2, 3)
    inner = block[2](block[1](block[0](grid)))  # after the 1x3 convolution
    above = torch.cat([torch.zeros_like(inner[:, :, :1]), inner[:, :, :1]], 2)
    weight = block[4].weight
    summed = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], above)
    summed += torch.einsum("oi,nihw->nohw", weight[:, :, 1, 0], inner) + block[4].bias[None, :, None, None]
    torch.testing.assert_close(network(grid), (grid + block[6](summed.relu())).relu())


def test_predictions_start_at_the_row_that_they_speak_of():
    predictor = RowPredictor(4, 6, [2, 3], scale=0.1, hidden=5, blocks=2)
    grid = torch.randn(3, 5, 4, 4)
    found = predictor(grid)
    assert {k: tuple(value.shape) for k, value in found.items()} == {2: (3, 3, 4, 6), 3: (3, 2, 4, 6)}
    context = predictor.context(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found[3], 0.1 * predictor.heads[1](context[:, :2]))
