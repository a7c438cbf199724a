"""Queue and bank beside plain lists that do the same by hand."""

import pytest
import torch

from fullrank.networks import Bank, Momentum, Queue, unit


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [3, 5, 2, 7, 1], [12, 25, 9]])
def test_queue_holds_the_newest_rows_whatever_the_batches(sizes):
    queue, written = Queue(10, 3), []
    start = queue.rows.clone()
    for size in sizes:
        rows = torch.randn(size, 3)
        queue.push(rows)
        written += list(rows)
    expected = list(start)
    for position, row in enumerate(written):
        expected[position % 10] = row
    assert torch.equal(queue.rows, torch.stack(expected))
    assert queue.pointer == len(written) % 10
    assert queue.is_full == (len(written) >= 10)


def test_queue_starts_as_unit_noise_or_zeros():
    torch.testing.assert_close(Queue(5, 4).rows.norm(dim=1), torch.ones(5))
    assert Queue(5, 4, zeros=True).rows.abs().sum() == 0


def test_queue_keeps_no_graph():
    queue = Queue(4, 2)
    queue.push(torch.ones(2, 2, requires_grad=True) * 2)
    assert not queue.rows.requires_grad


def test_queue_finds_the_most_similar_row():
    angles = torch.tensor([0.0, 0.006, 1.5, 3.0])  # the first two differ by less than bfloat16 sees
    queue = Queue(4, 2)
    queue.rows.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    near, lengths = angles + 0.001, torch.tensor([[3.0], [0.5], [9.0], [1.0]])
    rows = lengths * torch.stack([near.cos(), near.sin()], 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert queue.nearest(rows).tolist() == [0, 1, 2, 3]


def test_unit_rows_are_at_least_float32():
    rows = torch.randn(3, 4)
    assert unit(rows.bfloat16()).dtype == torch.float32
    assert unit(rows.double()).dtype == torch.float64


def test_bank_averages_the_rows_of_its_samples():
    bank = Bank(6, 3)
    before, new = bank.rows.clone(), torch.randn(2, 3)
    bank.update(torch.tensor([4, 1]), new, momentum=0.25)
    for row, sample in enumerate((4, 1)):
        expected = 0.25 * before[sample] + 0.75 * new[row]
        torch.testing.assert_close(bank.rows[sample], expected / expected.norm())
    untouched = [0, 2, 3, 5]
    assert torch.equal(bank.rows[untouched], before[untouched])


def test_bank_draws_each_sample_and_uniform_negatives():
    bank = Bank(8, 2)
    drawn = bank.draw(torch.tensor([3, 5]), 4000)
    assert drawn[:, 0].tolist() == [3, 5]
    counts = drawn[:, 1:].flatten().bincount(minlength=8)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5  # its own row too


def test_momentum_follows_parameters_and_keeps_its_own_statistics():
    source = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    target = Momentum(source)
    before = [parameter.clone() for parameter in target.copy.parameters()]
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1.0)
    source(torch.randn(5, 3))
    target.follow(source, 0.9)
    for parameter, old in zip(target.copy.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old + 0.1)
    assert target.copy[1].num_batches_tracked == 0
    assert not target(torch.randn(5, 3)).requires_grad
    assert target.copy[1].num_batches_tracked == 1
