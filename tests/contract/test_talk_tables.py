"""The talk's tables of tricks, shared weights, normalisation and widths: every cell is reachable by options.

Options go the way of the command line: parsed, resolved to settings, built. No accuracy is looked at here.
"""

import pytest
import torch
from torch import nn

from fullrank import arguments
from fullrank.errors import InputError
from fullrank.methods import Batch, DataFacts, Regularizer
from fullrank.networks.branch import UnitRows
from fullrank.runs.build import build_method
from fullrank.runs.settings import resolve
from fullrank.schedules import Progress
from fullrank.training.optimizer import build_optimizer, optimization_for, set_rates

N, SIZE = 8, 32
SMALL = {
    "vicreg": ["--expander", "24-24-16"],
    "barlowtwins": ["--projector", "24-24-16"],
    "simclr": ["--projector", "24-24-16"],
    "byol": ["--projector", "24-16"],
    "simsiam": ["--projector", "24-24-16"],
}
# Momentum encoder, stop-gradient, predictor, batch norm: the rows of the talk's table, and what turns them on.
ROWS = {
    "byol": ("byol", "ME SG PR BN", ["--predictor", "24-16"]),
    "simsiam": ("simsiam", "SG PR BN", ["--predictor", "8-16"]),
    "simsiam, no BN": ("simsiam", "SG PR", ["--predictor", "8-16", "--batch_norm", "false"]),
    "simsiam, no BN, no PR": ("simsiam", "SG", ["--predictor", "", "--batch_norm", "false"]),
    "vicreg with PR": ("vicreg", "PR", ["--predictor", "8-16", "--batch_norm", "false"]),
    "vicreg with PR, BN": ("vicreg", "PR BN", ["--predictor", "8-16"]),
    "vicreg": ("vicreg", "BN", []),
    "vicreg, no BN": ("vicreg", "", ["--batch_norm", "false"]),
    # the four switches in other hands: what a deliberate collapse needs
    "byol without ME": ("byol", "SG PR BN", ["--predictor", "24-16", "--momentum", "0"]),
    "byol without ME, SG": (
        "byol",
        "PR BN",
        ["--predictor", "24-16", "--momentum", "0", "--stop_gradient", "false"],
    ),
    "simsiam without SG": ("simsiam", "PR BN", ["--predictor", "8-16", "--stop_gradient", "false"]),
    "simsiam without PR": ("simsiam", "SG BN", ["--predictor", "none"]),
    "vicreg with all": (
        "vicreg",
        "ME SG PR BN",
        ["--momentum", "0.9", "--stop_gradient", "true", "--predictor", "8-16"],
    ),
}
# The columns: what is regularised, as VICReg says it and as every other method does.
COLUMNS = {
    "no reg": (["--variance", "0", "--covariance", "0"], []),
    "var": (["--covariance", "0"], ["--regularize.variance", "25"]),
    "var + cov": ([], ["--regularize.variance", "25", "--regularize.covariance", "1"]),
}


def settings_of(method, *options, backbone="test_resnet"):
    given = ["--method", method, "--backbone", backbone, *SMALL[method], *options]
    return resolve(arguments.parse("train", given, with_json=False))


def build(settings):
    return build_method(settings, DataFacts(samples=32, classes=4, image_size=SIZE))[0]


def batch():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(N, 3, SIZE, SIZE, generator=generator)
    views = [common + torch.randn(N, 3, SIZE, SIZE, generator=generator) for _ in range(2)]
    return Batch(views, torch.arange(N), torch.arange(N) % 4)


def norms(module):
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm1d)]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_every_cell_of_the_table_of_tricks(row, column):
    method_name, tricks, options = ROWS[row]
    regularised = COLUMNS[column][0 if method_name == "vicreg" else 1]
    settings = settings_of(method_name, *options, *regularised)
    method = build(settings)
    network = method.network
    found = {
        "ME": network.target is not None,
        "PR": network.predictor is not None,
        "BN": bool(norms(network.branch.projector)),
    }
    assert found == {trick: trick in tricks.split() for trick in found}
    if network.predictor is not None:
        assert bool(norms(network.predictor)) == ("BN" in tricks)
    sides = network(batch().views)
    assert sides.targets[0].requires_grad == ("SG" not in tricks)
    assert all(z.requires_grad for z in sides.embeddings)
    assert (sides.predictions[0] is sides.embeddings[0]) == ("PR" not in tricks)

    regularizer = Regularizer(**settings.regularize)
    step = regularizer(method(batch()), on_sphere=method.on_sphere)
    weights = {"no reg": (0, 0), "var": (25, 0), "var + cov": (25, 1)}[column]
    if method_name == "vicreg":
        assert (method.weights["variance"], method.weights["covariance"]) == weights
        expected = 25 * step.terms["invariance"] + sum(
            weight * step.terms[name] for name, weight in zip(("variance", "covariance"), weights, strict=True)
        )
        torch.testing.assert_close(step.loss, expected)
    else:
        assert ("regularize_variance" in step.terms) == (weights[0] > 0)
        assert (regularizer.variance, regularizer.covariance) == weights
        own = step.terms["regression"] if method_name == "byol" else -step.terms["similarity"]
        added = weights[0] * step.terms.get("regularize_variance", 0) + weights[1] * step.terms.get(
            "regularize_covariance", 0
        )
        torch.testing.assert_close(step.loss, own + added)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_with_its_optimiser(row):
    """A step moves every weight, whatever is left of the network that the published recipe speaks of."""
    method_name, _, options = ROWS[row]
    for optimizer in ([], ["--optimizer", "sgd"], ["--optimizer", "lars"]):
        settings = settings_of(method_name, *options, *optimizer)
        method = build(settings)
        optimization = optimization_for(method.published, settings)
        steps = build_optimizer(method, optimization)
        before = {name: value.clone() for name, value in method.named_parameters()}
        progress = Progress(2, 8, 2.0)
        set_rates(steps, optimization, progress)
        method(batch()).loss.backward()
        method.before_step(progress)
        steps.step()
        method.after_step(progress)
        moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}
        trained = {name for name, value in method.named_parameters() if value.requires_grad and value.ndim > 1}
        assert trained <= moved
        rates = {group["scheduled"]: group["lr"] for group in steps.param_groups}
        assert (False in rates) == (method_name == "simsiam" and method.network.predictor is not None)


@pytest.mark.parametrize(
    ("options", "second"),
    [
        (["--branches", "separate"], "ResNet"),
        (["--backbone2", "resnet10t"], "ResNet"),
        (["--branches", "separate", "--backbone2", "vit_tiny_patch16_224"], "VisionTransformer"),
    ],
)
@pytest.mark.parametrize("method_name", ["vicreg", "barlowtwins", "simclr"])
def test_branches_with_weights_of_their_own(method_name, options, second):
    method = build(settings_of(method_name, *options))
    assert type(method.network.second.backbone).__name__ == second
    ours = {id(parameter) for parameter in method.network.branch.parameters()}
    assert not ours & {id(parameter) for parameter in method.network.second.parameters()}
    method(batch()).loss.backward()
    for branch in (method.network.branch, method.network.second):
        check_learning(branch)


def check_learning(branch):
    """Gradients are everywhere; those of residual blocks that start as the identity are zero at first."""
    gradients = [value.grad for value in branch.parameters() if value.ndim > 1]
    assert all(gradient is not None for gradient in gradients)
    assert gradients[0].abs().sum() > 0
    assert gradients[-1].abs().sum() > 0


def test_a_larger_resnet_stands_beside_a_small_one():
    with torch.device("meta"):
        network = build(settings_of("vicreg", "--backbone2", "resnet101", backbone="resnet50")).network
    counts = [sum(each.numel() for each in branch.backbone.parameters()) for branch in (network.branch, network.second)]
    narrowed = 64 * 3 * (7 * 7 - 3 * 3)  # stems that are fitted to 32 px: the recipe's is that of its own network
    assert counts == [23_508_032 - narrowed, 42_500_160 - narrowed]


def test_shared_branches_are_one_network():
    assert build(settings_of("vicreg", "--branches", "shared")).network.second is None
    with pytest.raises(InputError, match="leave out --branches shared"):
        build(settings_of("vicreg", "--branches", "shared", "--backbone2", "resnet10t"))


@pytest.mark.parametrize("options", [["--branches", "separate"], ["--backbone2", "resnet10t"]])
@pytest.mark.parametrize(("method_name", "reason"), [("byol", "momentum encoder"), ("simsiam", "one network")])
def test_methods_of_one_network_refuse_two_with_a_reason(method_name, reason, options):
    with pytest.raises(InputError, match=f"{method_name} cannot have separate branches: .*{reason}"):
        build(settings_of(method_name, *options))


def test_two_networks_refuse_a_momentum_encoder():
    with pytest.raises(InputError, match="cannot have a momentum encoder or a predictor"):
        build(settings_of("vicreg", "--branches", "separate", "--momentum", "0.9"))


@pytest.mark.parametrize("batch_norm", ["true", "false"])
@pytest.mark.parametrize("embedding", ["none", "std", "l2"])
@pytest.mark.parametrize("representation", ["none", "std", "l2"])
@pytest.mark.parametrize("method_name", ["vicreg", "byol"])
def test_every_cell_of_the_table_of_normalisation(method_name, representation, embedding, batch_norm):
    options = ["--normalize_representation", representation, "--normalize_embedding", embedding]
    options += ["--predictor", "8-16"] if method_name == "byol" else []
    method = build(settings_of(method_name, *options, "--batch_norm", batch_norm))
    layers = list(method.network.branch.projector)
    inside = layers[0 if representation == "none" and embedding == "none" else 1 :]
    assert bool([each for each in inside if isinstance(each, nn.BatchNorm1d) and each.affine]) == (batch_norm == "true")
    step = method(batch())
    z = step.embeddings[0]
    check_normalised(z, embedding)
    seen = {}
    first = next(layer for layer in layers if isinstance(layer, nn.Linear))
    first.register_forward_pre_hook(lambda layer, given: seen.setdefault("input", given[0]))
    method(batch())
    check_normalised(seen["input"], representation)
    assert any(isinstance(layer, UnitRows) for layer in layers) == ("l2" in (representation, embedding))
    step.loss.backward()
    check_learning(method.network.branch)


def check_normalised(rows, kind):
    if kind == "l2":
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    if kind == "std":
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-5, rtol=0)
        std = rows.std(0, unbiased=False)
        assert std.max() <= 1 + 1e-5
        assert std.median() > 0.6  # the layer adds 1e-5 to variances that are small here
    if kind == "none":
        assert (rows.norm(dim=1) - 1).abs().max() > 1e-2


@pytest.mark.parametrize("width", [256, 512, 1024, 2048, 4096, 8192, 16384])
def test_every_width_of_the_expander(width):
    with torch.device("meta"):
        method = build(settings_of("vicreg", "--expander", f"{width}-{width}-{width}"))
    linear = [layer.out_features for layer in method.network.branch.projector if isinstance(layer, nn.Linear)]
    assert linear == [width] * 3
    method = build(settings_of("vicreg", "--expander", f"16-{width}"))  # the widest in full would take 4 GB
    step = method(batch())
    assert step.embeddings[0].shape == (N, width)
    step.loss.backward()


def test_regularised_batches_are_not_accumulated():
    options = ["--accumulate", "2", "--predictor", "8-16"]
    assert settings_of("simsiam", *options).accumulate == 2
    with pytest.raises(InputError, match="regularize compare"):
        settings_of("simsiam", *options, "--regularize.covariance", "1")
