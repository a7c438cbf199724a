"""Two encoders of lightness and colours as one network of RGB images."""

import pytest
import torch
from torch import nn

from fullrank.networks import SideBySide, SplitColours
from fullrank.networks.split_colours import SPACES, lab

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


class Mean(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.num_features = channels

    def forward(self, images):
        return images.mean((2, 3))


def standardised(rgb):
    return (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_known_colours_in_lab():
    # White, black, two greys and the primaries, as tables of CIE Lab under D65 list them.
    known = {
        (1.0, 1.0, 1.0): (100, 0, 0),
        (0.0, 0.0, 0.0): (0, 0, 0),
        (0.5, 0.5, 0.5): (53.39, 0, 0),
        (0.2, 0.2, 0.2): (21.25, 0, 0),
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    }
    rgb = torch.tensor(list(known)).view(-1, 3, 1, 1)
    found, expected = lab(rgb).flatten(1), torch.tensor(list(known.values()), dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("space", SPACES)
def test_first_encoder_sees_lightness_and_the_second_colours(space):
    rgb = torch.rand(4, 3, 6, 6)
    network = SplitColours(Mean(1), Mean(2), space, MEAN, STD)
    centre, width = (torch.tensor(each).view(3, 1, 1) for each in SPACES[space][1:])
    expected = ((SPACES[space].convert(rgb) - centre) / width).mean((2, 3))
    assert network.num_features == 3
    torch.testing.assert_close(network(standardised(rgb)), expected, rtol=1e-4, atol=1e-4)
    assert network.state_dict() == {}


def test_grey_has_no_colours_and_half_precision_loses_none():
    grey = torch.rand(2, 1, 4, 4).expand(2, 3, 4, 4)
    network = SplitColours(Mean(1), Mean(2), "ydbdr", MEAN, STD)
    with torch.autocast("cpu", torch.bfloat16):
        _, colours = network.split(standardised(grey))
    centred = colours * torch.tensor([1.331, 1.333]).view(2, 1, 1) + torch.tensor([-0.082, -0.052]).view(2, 1, 1)
    assert centred.abs().max() < 1e-5


def test_side_by_side():
    parts = nn.Linear(2, 3), nn.Linear(4, 1)
    rows = torch.randn(5, 6)
    expected = torch.cat([parts[0](rows[:, :2]), parts[1](rows[:, 2:])], 1)
    assert torch.equal(SideBySide(parts, (2, 4))(rows), expected)
