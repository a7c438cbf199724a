"""An image and its puzzle through one backbone."""

import pytest
import torch
from torch import nn

from fullrank.errors import InputError
from fullrank.networks import Branch, Puzzle


class Mean(nn.Module):
    """The mean of each channel, and how many images came in each pass."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return images.mean((2, 3))


def build():
    torch.manual_seed(0)
    return Puzzle(Branch(Mean(), nn.Linear(3, 2)), nn.Linear(3, 2), 2, 4)


def test_pieces_are_encoded_one_by_one_and_joined_in_their_order():
    network, images, pieces = build(), torch.randn(5, 3, 8, 8), torch.randn(5, 4, 3, 3, 3)
    (y, y_puzzle), (z, z_puzzle) = network(images, pieces)
    assert network.backbone.sizes == [20, 5]
    torch.testing.assert_close(y, images.mean((2, 3)))
    torch.testing.assert_close(z, network.branch.projector(y))
    for sample in range(5):
        features = [piece.mean((1, 2)) for piece in pieces[sample]]
        torch.testing.assert_close(y_puzzle[sample], sum(features) / 4)
        joined = torch.cat([network.piece_projector(each) for each in features])
        torch.testing.assert_close(z_puzzle[sample], network.join(joined))
    shuffled = network(images, pieces.flip(1))[1][1]
    assert not torch.allclose(shuffled, z_puzzle)


def test_whole_images_need_no_puzzle():
    network, images = build(), torch.randn(2, 3, 8, 8)
    y, z = network.embed(images)
    torch.testing.assert_close(y, images.mean((2, 3)))
    assert z.shape == (2, 2)


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 9, 3, 3, 3)])
def test_views_that_are_no_such_puzzle_are_an_error(shape):
    with pytest.raises(InputError, match="puzzles of 4 pieces: give it grid and piece"):
        build()(torch.randn(5, 3, 8, 8), torch.randn(shape))
