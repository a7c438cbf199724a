"""The pictures of a run that its report shows."""

import pytest
import torch

from fullrank.training.report_data import mosaic


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_pieces_of_a_puzzle_become_one_square_picture(channels):
    pieces = torch.rand(2, 5, channels, 4, 4)
    shown = mosaic(pieces)
    assert shown.shape == (2, max(channels, 3), 16, 16)
    for position in range(9):
        row, column = 1 + 5 * (position // 3), 1 + 5 * (position % 3)
        square = shown[:, :channels, row : row + 4, column : column + 4]
        expected = pieces[:, position] if position < 5 else torch.ones(2, channels, 4, 4)
        assert torch.equal(square, expected)


def test_pictures_are_shown_as_they_are():
    pictures = torch.rand(2, 3, 8, 8)
    assert mosaic(pictures) is pictures
