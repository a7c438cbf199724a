"""One contract over every registered method: a new one is tested without writing a test."""

import copy
import inspect

import pytest
import torch
from torch import nn

from fullrank import methods
from fullrank.methods import Batch, Regularizer
from fullrank.networks import Momentum
from fullrank.networks.batch_norm import synchronise_batch_norm
from fullrank.runs.settings import FILLED_IN, method_options, switch_names, train_options
from fullrank.schedules import Progress
from fullrank.training.optimizer import OPTIMIZERS, build_optimizer
from tests.contract.networks import VARIANTS, N, batch, build, run

PLAIN = [(name, {}) for name in methods.names()]


@pytest.fixture(params=methods.names())
def name(request):
    return request.param


def test_declares_what_the_library_shows(name):
    method = methods.get(name)
    assert "arXiv" in method.paper or "http" in method.paper
    assert method.family in methods.FAMILIES
    assert method.published.optimizer in OPTIMIZERS
    assert not set(method_options(name)) & set(train_options())
    documented = inspect.getdoc(method)
    own = set(inspect.signature(method.__init__).parameters) - {"self", "backbone"}
    assert all(f"{option}:" in documented for option in own - set(FILLED_IN))
    assert all(view.shape(3)[-1] <= 64 for view in method.views(64))
    assert "=" in inspect.getmodule(method).__doc__.splitlines()[0], "the file opens with the equation"


def test_one_step_reaches_every_declared_parameter(name):
    method = build(name)
    step = run(method, batch(name))
    assert step.loss.shape == ()
    assert torch.isfinite(step.loss)
    assert all(torch.isfinite(term) for term in step.terms.values())
    step.loss.backward()
    without = [key for key, value in method.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    # A bias before a batch norm has a zero gradient by construction; every weight must move.
    trained = [(key, value) for key, value in method.named_parameters() if value.requires_grad and value.ndim > 1]
    assert not [key for key, value in trained if value.grad.abs().sum() == 0]


def test_targets_get_no_gradient(name):
    method = build(name)
    run(method, batch(name)).loss.backward()
    copies = [module for module in method.modules() if isinstance(module, Momentum)]
    assert not [key for each in copies for key, value in each.named_parameters() if value.grad is not None]


def test_what_a_warning_speaks_of_are_options(name):
    assert set(methods.get(name).levers) <= set(method_options(name))


def test_embeddings_can_be_regularised(name):
    method = build(name)
    regularizer = Regularizer(variance=25.0, covariance=1.0)
    plain = run(copy.deepcopy(method), batch(name))
    step = regularizer(run(method, batch(name)), on_sphere=method.on_sphere)
    assert all(z.ndim == 2 and z.requires_grad for z in step.embeddings)
    assert all(len(y) == len(z) for y, z in zip(step.representations, step.embeddings, strict=True))
    added = 25 * step.terms["regularize_variance"] + step.terms["regularize_covariance"]
    torch.testing.assert_close(step.loss, plain.loss + added)
    added.backward()
    trained = [(key, value) for key, value in method.named_parameters() if value.requires_grad and value.ndim > 1]
    weights = [value for key, value in trained if "backbone" in key]
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in weights)


@pytest.mark.parametrize("n", [2, 5])
def test_small_and_short_batches(name, n):
    method = build(name)
    run(method, batch(name))  # what is remembered of a full batch must not stand in the way of a short one
    assert torch.isfinite(run(method, batch(name, n=n)).loss)


def test_evaluation_remembers_nothing(name):
    method = build(name)
    run(method, batch(name))
    method.eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    run(method, batch(name, seed=2))
    changed = [key for key, value in method.state_dict().items() if not torch.equal(value, before[key])]
    assert not changed


def test_same_seed_same_loss(name):
    losses = [run(build(name), batch(name)).loss for _ in range(2)]
    assert losses[0] == losses[1]
    assert run(build(name, seed=5), batch(name)).loss != losses[0]


def train(method, name, steps, dtype=torch.float32, part=slice(None), *, text=False):
    """A few steps of plain SGD with everything that a trainer calls; the last loss."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    module = method.module if isinstance(method, nn.parallel.DistributedDataParallel) else method
    for number in range(steps):
        progress = Progress(number, steps, 2)
        joint = batch(name, seed=10 + number, dtype=dtype, text=text)
        labels = joint.labels[part]
        given = Batch([view[part] for view in joint.views], joint.index[part], labels, progress)
        optimizer.zero_grad()
        loss = run(method, given, seed=number).loss
        loss.backward()
        module.before_step(progress)
        optimizer.step()
        module.after_step(progress)
    return loss


@pytest.mark.parametrize(("name", "options"), PLAIN + VARIANTS)
def test_saved_and_loaded_goes_on_as_before(name, options, tmp_path):
    method = build(name, **options)
    train(method, name, 3)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    other = build(name, seed=9, **options)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert run(other, batch(name, seed=2)).loss == run(method, batch(name, seed=2)).loss
    assert all(torch.equal(value, method.state_dict()[key]) for key, value in other.state_dict().items())


def test_bfloat16_autocast_agrees(name):
    method = build(name)
    exact = run(copy.deepcopy(method), batch(name)).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(method, batch(name)).loss
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)


# Tracing asks inputs for their gradient; torch keeps this warning from being shown, but not from being an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_agrees(name, unchecked_shapes):
    method = build(name)
    compiled = copy.deepcopy(method)
    assert compiled.compilable()
    for module in compiled.compilable():
        module.compile(backend="aot_eager")
    torch.testing.assert_close(run(compiled, batch(name)).loss, run(method, batch(name)).loss, rtol=1e-5, atol=1e-5)


def test_embed_gives_both_embeddings_of_whole_pictures(name):
    method = build(name).eval()
    images = batch(name).views[0] if batch(name).views[0].ndim == 4 else batch(name).views[0][:, 0]
    with torch.no_grad():
        representation, embedding = method.embed(images)
    torch.testing.assert_close(representation, method.backbone(images))
    assert embedding.shape[0] == N


def test_published_optimiser_takes_every_parameter_once(name):
    method = build(name)
    groups = build_optimizer(method, method.published).param_groups
    given = [parameter for group in groups for parameter in group["params"]]
    trained = {parameter for parameter in method.parameters() if parameter.requires_grad}
    assert len(given) == len(trained)
    assert set(given) == trained


def train_part(rank, name, steps, options, text, folder):
    """One of two processes, with its own rows of the joint batches."""
    method = synchronise_batch_norm(build(name, text=text, **options).double())
    parallel = nn.parallel.DistributedDataParallel(method)
    train(parallel, name, steps, torch.float64, slice(rank * N // 2, (rank + 1) * N // 2), text=text)
    torch.save(method.state_dict(), folder / f"{rank}.pt")


@pytest.mark.parametrize(("name", "options"), PLAIN + VARIANTS)
def test_two_processes_equal_one(name, options, processes, tmp_path):
    assert_two_processes_equal_one(name, processes(2), tmp_path, options=options)


def assert_two_processes_equal_one(name, two, folder, *, steps=3, options=None, text=False):
    options = options or {}
    two.run(train_part, name, steps, options, text, folder)
    method = build(name, text=text, **options).double()
    train(method, name, steps, torch.float64, text=text)
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        assert found.keys() == method.state_dict().keys()
        for key, value in method.state_dict().items():
            message = lambda text, key=key: f"rank {rank}, {key}: {text}"  # noqa: E731, B023
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11, msg=message)


def test_switches_are_options(name):
    if "switches" in inspect.signature(methods.get(name).__init__).parameters:
        assert set(switch_names()) <= set(method_options(name))
