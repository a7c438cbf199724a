"""One contract over every registered method: a new one is tested without writing a test."""

import copy
import inspect

import pytest
import torch
from torch import nn

from fullrank import methods
from fullrank.methods import Batch
from fullrank.runs.settings import method_options, train_options

SMALL = {"expander": "24-24-16", "projector": "24-24-16"}
N, CHANNELS, SIZE = 8, 3, 16


class TinyBackbone(nn.Module):
    """A convolution, a norm, a pool: enough to carry gradients and statistics."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(CHANNELS, 12, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, images):
        return self.norm(self.convolution(images)).relu().mean((2, 3))


@pytest.fixture(params=methods.names())
def name(request):
    return request.param


def build(name, seed=0):
    torch.manual_seed(seed)
    options = {key: value for key, value in SMALL.items() if key in method_options(name)}
    return methods.get(name)(TinyBackbone(), **options)


def batch(name, n=N, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    count = sum(view.count for view in methods.get(name).views(SIZE))
    shared = torch.randn(n, CHANNELS, SIZE, SIZE, generator=generator)
    views = [shared + 0.3 * torch.randn(shared.shape, generator=generator) for _ in range(count)]
    return Batch([view.to(dtype) for view in views], torch.arange(n))


def test_declares_what_the_library_shows(name):
    method = methods.get(name)
    assert "arXiv" in method.paper
    assert method.published.optimizer in ("lars", "sgd", "adamw")
    assert not set(method_options(name)) & set(train_options())
    documented = inspect.getdoc(method)
    assert all(f"{option}:" in documented for option in method_options(name))
    assert all(view.size == SIZE for view in method.views(SIZE))


def test_one_step_reaches_every_declared_parameter(name):
    method = build(name)
    step = method(batch(name))
    assert step.loss.shape == ()
    assert torch.isfinite(step.loss)
    assert all(torch.isfinite(term) for term in step.terms.values())
    step.loss.backward()
    without = [key for key, value in method.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    # A bias before a batch norm has a zero gradient by construction; every weight must move.
    assert all(value.grad.abs().sum() > 0 for key, value in method.named_parameters() if value.ndim > 1)


def test_terms_and_coefficients_speak_of_the_same_things(name):
    method = build(name)
    assert set(method.coefficients()) <= set(method(batch(name)).terms) | {"regularization"}


def test_two_samples_are_enough(name):
    assert torch.isfinite(build(name)(batch(name, n=2)).loss)


def test_same_seed_same_loss(name):
    losses = [build(name)(batch(name)).loss for _ in range(2)]
    assert losses[0] == losses[1]
    assert build(name, seed=5)(batch(name)).loss != losses[0]


def test_saved_and_loaded_gives_the_same_loss(name, tmp_path):
    method = build(name)
    method(batch(name)).loss.backward()
    torch.save(method.state_dict(), tmp_path / "state.pt")
    other = build(name, seed=9)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other(batch(name, seed=2)).loss == copy.deepcopy(method)(batch(name, seed=2)).loss


def test_bfloat16_autocast_agrees(name):
    method = build(name)
    exact = copy.deepcopy(method)(batch(name)).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(batch(name)).loss
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_compiled_agrees(name, unchecked_shapes):
    method = build(name)
    compiled = copy.deepcopy(method)
    compiled.branch.compile(backend="aot_eager")
    torch.testing.assert_close(compiled(batch(name)).loss, method(batch(name)).loss, rtol=1e-5, atol=1e-5)


def test_embed_gives_both_embeddings_of_whole_pictures(name):
    method = build(name).eval()
    with torch.no_grad():
        representation, embedding = method.embed(batch(name).views[0])
    torch.testing.assert_close(representation, method.backbone(batch(name).views[0]))
    assert embedding.shape[0] == N


def gradients(method, views, index):
    """Gradients of one process, float64."""
    method.zero_grad()
    method(Batch(views, index)).loss.backward()
    return {key: value.grad for key, value in method.named_parameters() if value.grad is not None}


def process(rank, world, name, folder):
    """One of several processes, with its own rows of the joint batch."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    from fullrank.networks.batch_norm import synchronise_batch_norm

    method = synchronise_batch_norm(build(name).double())
    parallel = nn.parallel.DistributedDataParallel(method)
    joint = batch(name, dtype=torch.float64)
    part = slice(rank * N // world, (rank + 1) * N // world)
    parallel(Batch([view[part] for view in joint.views], joint.index[part])).loss.backward()
    if rank == 0:
        found = {key: value.grad for key, value in method.named_parameters() if value.grad is not None}
        buffers = dict(method.named_buffers())
        torch.save((found, buffers), folder / "rank0.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(name, tmp_path):
    torch.multiprocessing.spawn(process, (2, name, tmp_path), nprocs=2)
    found, buffers = torch.load(tmp_path / "rank0.pt", weights_only=True)
    method = build(name).double()
    joint = batch(name, dtype=torch.float64)
    expected = gradients(method, joint.views, joint.index)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")
    for key, value in method.named_buffers():
        torch.testing.assert_close(buffers[key], value, rtol=1e-9, atol=1e-11)
