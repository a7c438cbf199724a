"""The contract of methods that can take captions in place of a second picture: those of two separate branches."""

import inspect

import pytest
import torch

from fullrank import methods
from tests.contract.networks import batch, build, run
from tests.contract.test_methods import assert_two_processes_equal_one


def takes_captions(name):
    kind = methods.get(name)
    return "second" in inspect.signature(kind.__init__).parameters and not (kind.one_network or kind.branch_channels)


@pytest.fixture(params=filter(takes_captions, methods.names()))
def name(request):
    return request.param


def test_one_step_reaches_both_networks(name):
    method = build(name, text=True)
    step = run(method, batch(name, text=True))
    assert torch.isfinite(step.loss)
    step.loss.backward()
    trained = [(key, value) for key, value in method.named_parameters() if value.requires_grad and value.ndim > 1]
    assert not [key for key, value in trained if value.grad is None or value.grad.abs().sum() == 0]
    assert [len(each) for each in (step.representations, step.embeddings)] == [2, 2]


def test_captions_are_embedded_as_in_training(name):
    method = build(name, text=True).eval()
    given = batch(name, text=True)
    with torch.no_grad():
        step = run(method, given)
        representation, embedding = method.embed_captions(given.views[1])
    torch.testing.assert_close(representation, step.representations[1])
    torch.testing.assert_close(embedding, step.embeddings[1])


def test_compiled_agrees(name, unchecked_shapes):
    method, other = build(name, text=True), build(name, text=True)
    for module in other.compilable():
        module.compile(backend="aot_eager")
    given = batch(name, text=True)
    torch.testing.assert_close(run(other, given).loss, run(method, given).loss, rtol=1e-5, atol=1e-5)


def test_two_processes_equal_one(name, processes, tmp_path):
    assert_two_processes_equal_one(name, processes(2), tmp_path, text=True)
