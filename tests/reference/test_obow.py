"""OBoW: bags of words and vocabularies, prediction head and loss, and whole steps through the method."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fullrank import losses
from fullrank.methods import Batch, DataFacts, get
from fullrank.networks import Vocabulary, word_weights
from fullrank.schedules import Progress, cosine
from tests.reference.state import load, tensor

WINDOWS = {"local_average": 3, "no_averaging": 1, "global_average": 0}
GENERATOR = {"fc": "1.weight", "bn_w": "2.weight", "bn_b": "2.bias", "last_w": "4.weight", "last_b": "4.bias"}


@pytest.fixture
def places(monkeypatch) -> SimpleNamespace:
    """Replays the places that the file's queues took, in place of random ones; `left` are those still to come."""
    replay = SimpleNamespace(left=iter(()))

    def randint(low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        if high == 1:
            return torch.zeros(size, dtype=torch.long)
        drawn = next(replay.left)
        assert drawn.shape == size
        assert 0 <= low <= drawn.min() <= drawn.max() < high
        return drawn

    monkeypatch.setattr(torch, "randint", randint)
    return replay


def numbers(file: dict, *keys: str) -> Iterator[torch.Tensor]:
    """These arrays, where the file has them."""
    return iter([tensor(file, key) for key in keys if key in file])


@pytest.mark.parametrize("name", ["obow_extractor", "obow_extractor_global_hard"])
def test_vocabulary(name, places, fixture_file, error_table) -> None:
    file = fixture_file(name)
    p = file["params"]
    pooling = {"max": "max", "avg": "mean", "mean": "mean"}[p["bow_pool"]]
    options = {"inv_delta": float(p["inv_delta"] or 0), "pooling": pooling, "decay": p["decay"]}
    vocabulary = Vocabulary(p["K"], p["C"], window=WINDOWS[p["update_type"]], **options).double()
    vocabulary.queue.rows.copy_(tensor(file, "in_vocab"))
    vocabulary.mean_distance.copy_(tensor(file, "in_min_dist"))
    checked = 0
    for step in range(p["steps"]):
        vocabulary.train(step < p["steps"] - 1 or p["training_last"])
        places.left = numbers(file, f"in_rand_{step}")
        maps = tensor(file, f"in_features_{step}")
        bags, codes = vocabulary(maps)
        height, width = maps.shape[2:]
        found = {
            "bow": bags,
            "codes": codes.transpose(1, 2).unflatten(2, (height - 2, width - 2)),
            "min_dist": vocabulary.mean_distance,
            "vocab": vocabulary.words,
        }
        for key, value in found.items():
            error_table.check(name, f"out_{key}", value, file[f"out_{key}_{step}"])
        checked += len(found)
    assert checked == sum(key.startswith(("out_", "grad_")) for key in file)


def load_generator(generator: nn.Module, file: dict, level: int) -> nn.Module:
    return load(generator, file, {own: f"in_{key}_{level}" for key, own in GENERATOR.items()})


def gradients(generator: nn.Module, level: int) -> dict[str, torch.Tensor]:
    named = dict(generator.named_parameters())
    return {f"grad_{key}_{level}": named[own].grad for key, own in GENERATOR.items()}


def test_head_and_loss(fixture_file, error_table) -> None:
    name = "obow_predictor"
    file = fixture_file(name)
    p = file["params"]
    levels, kinds = range(len(p["K"])), range(len(p["crops"]))
    features = [tensor(file, f"in_feat_{kind}").requires_grad_() for kind in kinds]
    generators = [load_generator(word_weights(p["C"][level], p["Cout"]).double(), file, level) for level in levels]
    weights = [generators[level](tensor(file, f"in_vocab_{level}")) for level in levels]
    logits = {str(kind): [p["kappa"] * features[kind] @ rows.T for rows in weights] for kind in kinds}
    terms = losses.obow(logits, [tensor(file, f"in_bow_{level}") for level in levels])
    terms["loss"].backward()
    found = {"out_loss": terms["loss"]}
    for kind in kinds:
        found |= {f"out_loss_{kind}": terms[str(kind)], f"grad_feat_{kind}": features[kind].grad}
        found |= {f"out_logits_{kind}_{level}": logits[str(kind)][level] for level in levels}
    for level in levels:
        found |= gradients(generators[level], level)
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])


class TwoConvolutions(nn.Module):
    """The network of the file: two convolutions with ReLU, each a level, and a global mean."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(*widths, 3, padding=1)
        self.num_features = widths[1]

    def forward_intermediates(self, images: torch.Tensor, indices: int = 2, **options) -> list[torch.Tensor]:
        first = self.conv1(images).relu()
        return [first, self.conv2(first).relu()][-indices:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_intermediates(images)[-1].mean((2, 3))


LAYERS = {f"conv{layer}.{kind}": f"conv{layer}_{kind[0]}" for layer in (1, 2) for kind in ("weight", "bias")}


def build(file: dict) -> nn.Module:
    """The method with the weights of the file; its vocabularies differ in size."""
    p = file["params"]
    backbone = TwoConvolutions((p["C1"], p["C2"]))
    options = {"words": 1, "levels": len(p["K"]), "kappa": float(p["kappa"]), "momentum": p["alpha_base"]}
    method = get("obow")(backbone, **options, facts=DataFacts(image_size=p["H"])).double()
    for network in (backbone, method.teacher.copy.backbone):
        load(network, file, {own: f"in_{key}" for own, key in LAYERS.items()})
    for level, generator in enumerate(method.generators):
        load_generator(generator, file, level)
        words = tensor(file, f"in_vocab_{level}")
        vocabulary = Vocabulary(*words.shape, inv_delta=float(p["inv_delta"][level] or 0)).double()
        vocabulary.queue.rows.copy_(words)
        method.vocabularies[level] = vocabulary
    return method


def views(file: dict, step: int) -> list[torch.Tensor]:
    """The whole image, then crops by kind: single ones, or one tensor where there are many of a kind."""
    given = [tensor(file, f"in_img_{step}")]
    for kind, count in enumerate(file["params"]["crops"]):
        crops = tensor(file, f"in_crop_{kind}_{step}").unflatten(0, (-1, count))
        given += crops.unbind(1) if kind == 0 else [crops]
    return given


def test_steps(places, fixture_file, error_table) -> None:
    name = "obow_step"
    file = fixture_file(name)
    p = file["params"]
    method = build(file)
    levels, sizes = range(len(p["K"])), [file[f"in_crop_{kind}_0"].shape[-1] for kind in range(len(p["crops"]))]
    assert len(set(sizes)) == len(sizes), "kinds of crops are told apart by their sizes"
    checked = set()
    for step in range(p["steps"]):
        load(method.backbone, file, {own: f"in_student_{key}_{step}" for own, key in LAYERS.items()})
        places.left = numbers(file, *(f"in_rand_{level}_{step}" for level in levels))
        progress = Progress(step, p["num_iterations"])
        method.zero_grad()
        result = method(Batch(views(file, step), torch.arange(p["B"]), progress=progress))
        result.loss.backward()
        terms, teacher = result.terms, method.teacher.copy.backbone
        perplexities = [terms[f"{kind}_perplexity_{level}"] for kind in ("batch", "image") for level in levels]
        found = {
            "losses": torch.stack([terms[f"crops_{size}"] for size in sizes]),
            "alpha": cosine(progress.share, method.momentum, 1.0),
            "perp": torch.stack(perplexities),
            "min_dist": torch.stack([vocabulary.mean_distance for vocabulary in method.vocabularies]),
            "teacher_conv1_w": teacher.conv1.weight,
            "teacher_conv2_w": teacher.conv2.weight,
        }
        found |= {f"vocab_{level}": method.vocabularies[level].words for level in levels}
        for key, value in found.items():
            error_table.check(name, f"out_{key}", value, file[f"out_{key}_{step}"])
            checked.add(f"out_{key}_{step}")
        torch.testing.assert_close(result.loss, found["losses"].sum())
    parameters = dict(method.backbone.named_parameters())
    last = {f"grad_{key}": parameters[own].grad for own, key in LAYERS.items()}
    for level in levels:
        last |= gradients(method.generators[level], level)
    for key, value in last.items():
        error_table.check(name, key, value, file[key])
    assert checked | last.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
