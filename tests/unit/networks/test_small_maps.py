"""Convolutions on maps that are smaller than their stride."""

import copy
import itertools

import pytest
import torch
from torch import nn

from fullrank.networks.small_maps import widen_small_maps

SIZES = ((1, 1), (1, 2), (2, 1), (3, 3), (1, 5), (6, 7))
SHAPES = list(itertools.product((1, 3, 5, 7), (2, 4), SIZES))


def both(convolution):
    """A convolution as it is, and the same with its maps widened."""
    widened = copy.deepcopy(convolution)
    widen_small_maps(widened)
    return convolution, widened


@pytest.mark.parametrize(("kernel", "stride", "size"), SHAPES)
def test_output_and_gradients_stay_what_they_are(kernel, stride, size):
    plain, widened = both(nn.Conv2d(3, 4, kernel, stride=stride, padding=kernel // 2).double())
    images = torch.randn(5, 3, *size, dtype=torch.float64, requires_grad=True)
    found = []
    for convolution in (plain, widened):
        output = convolution(images)
        found.append([output, *torch.autograd.grad(output.square().sum(), [images, *convolution.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_in_bfloat16_is_that_in_float64():
    _, convolution = both(nn.Conv2d(48, 96, 3, stride=2, padding=1, bias=False).to(memory_format=torch.channels_last))
    images = torch.randn(64, 48, 1, 1).to(memory_format=torch.channels_last)
    upstream = torch.randn(64, 96, 1, 1)
    for _ in range(5):
        freed = [torch.full((1 << size,), float("nan")) for size in range(6, 20)]  # what a gradient must not be made of
        del freed
        with torch.autocast("cpu", torch.bfloat16):
            output = convolution(images)
        (found,) = torch.autograd.grad(output, convolution.weight, upstream.to(output.dtype))
        expected = torch.zeros(96, 48, 3, 3, dtype=torch.float64)
        expected[:, :, 1, 1] = upstream.double().flatten(1).T @ images.double().flatten(
            1
        )  # only the centre meets a cell
        torch.testing.assert_close(found.double(), expected, rtol=0.03, atol=0.3)
        assert not found[:, :, 0].any()


@pytest.mark.parametrize("options", [{"padding_mode": "reflect"}, {"padding": 0}, {"padding": "valid"}])
def test_convolutions_whose_output_it_would_change_are_left_alone(options):
    plain, widened = both(nn.Conv2d(3, 4, 3, stride=2, **{"padding": 1} | options))
    images = torch.randn(2, 3, 3, 3)
    assert torch.equal(plain(images), widened(images))
    assert not widened._forward_pre_hooks
