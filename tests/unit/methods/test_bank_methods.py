"""What PIRL, CMC and InfoMin do beyond the contract."""

import copy

import pytest
import torch

from fullrank import losses, methods
from fullrank.errors import InputError
from fullrank.methods import Batch, DataFacts
from fullrank.schedules import Progress
from tests.contract.networks import FACTS, SMALL, TinyBackbone, batch, build, run

BANKS = {"pirl": ["memory"], "cmc": ["lightness", "colours"]}


@pytest.mark.parametrize("name", BANKS)
def test_banks_stay_in_evaluation_and_z_is_that_of_the_first_batch(name):
    method = build(name)
    run(method, batch(name))
    memories = [getattr(method, each) for each in BANKS[name]]
    constants = [each.log_partition.clone() for each in memories]
    assert all(torch.isfinite(each) for each in constants)
    before = copy.deepcopy(method.state_dict())
    run(method.eval(), batch(name, seed=2))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    run(method.train(), batch(name, seed=2))
    assert all(torch.equal(each.log_partition, old) for each, old in zip(memories, constants, strict=True))
    moved = [not torch.equal(value, before[key]) for key, value in method.state_dict().items() if "bank.rows" in key]
    assert len(moved) == len(memories)
    assert all(moved)


@pytest.mark.parametrize("name", BANKS)
def test_a_batch_moves_its_own_rows_towards_its_embeddings(name):
    method = build(name, momentum=0.0)
    given = batch(name)
    step = run(method, given)
    banks = [getattr(method, each).bank for each in BANKS[name]]
    for bank, z in zip(banks, step.embeddings, strict=name == "cmc"):
        torch.testing.assert_close(bank.rows[given.index], torch.nn.functional.normalize(z.detach()))


def test_pirl_draws_for_each_side_and_its_puzzles_set_z():
    method, given = build("pirl"), batch("pirl")
    reference = copy.deepcopy(method)
    torch.manual_seed(3)
    step = method(given)
    torch.manual_seed(3)
    _, (images, puzzles) = reference.network(*given.views)
    bank, found = reference.memory.bank, []
    for z in (puzzles, images):
        unit, rows = torch.nn.functional.normalize(z), bank.rows[bank.draw(given.index, SMALL["negatives"])]
        if not found:
            constant = losses.nce_log_partition(unit, rows, FACTS.samples, 0.07)
        found.append(losses.nce(unit, rows=rows, log_partition=constant, samples=FACTS.samples)["loss"])
    torch.testing.assert_close(step.terms["puzzle"], found[0])
    torch.testing.assert_close(step.terms["image"], found[1])


def test_pirl_weighs_its_losses():
    method = build("pirl", puzzle_weight=0.9, image_weight=0.2)
    step = run(method, batch("pirl"))
    torch.testing.assert_close(step.loss, 0.9 * step.terms["puzzle"] + 0.2 * step.terms["image"])
    assert method.weights == {"puzzle": 0.9, "image": 0.2}


def test_pirls_perceptron_of_the_pieces_ends_in_a_relu():
    heads = build("pirl", projector="10-6").network
    assert isinstance(heads.piece_projector[-1], torch.nn.ReLU)
    assert isinstance(heads.branch.projector[-1], torch.nn.Linear)
    assert isinstance(build("pirl", projector="6").network.piece_projector[-1], torch.nn.Linear)


def test_cmc_compares_each_side_with_the_others_memory():
    method, given = build("cmc", softmax=True), batch("cmc")
    lightness, colours = method.lightness.bank.rows.clone(), method.colours.bank.rows.clone()
    torch.manual_seed(3)
    drawn = method.lightness.bank.draw(given.index, SMALL["negatives"])
    step = run(copy.deepcopy(method), given)
    sides = dict(zip(("lightness", "colours"), step.embeddings, strict=True))
    for name, memory in (("lightness", colours), ("colours", lightness)):
        unit = torch.nn.functional.normalize(sides[name])
        logits = (memory[drawn] @ unit[:, :, None])[..., 0] / 0.07
        expected = torch.nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
        torch.testing.assert_close(step.terms[name], expected)
    torch.testing.assert_close(step.loss, step.terms["lightness"] + step.terms["colours"])


def test_cmc_keeps_both_encoders():
    method = build("cmc").eval()
    images = batch("cmc").views[0]
    lightness, colours = method.backbone.split(images)
    features = torch.cat([method.backbone.lightness(lightness), method.backbone.colours(colours)], 1)
    torch.testing.assert_close(method.embed(images)[0], features)
    assert method.backbone.num_features == features.shape[1] == 24


def test_cmc_wants_colours():
    with pytest.raises(InputError, match="these have 13 channels"):
        methods.get("cmc")(TinyBackbone(1), second=TinyBackbone(2), facts=DataFacts(channels=13))


def test_infomin_has_one_key_and_queue_for_both_queries():
    method, given = build("infomin"), batch("infomin")
    reference = copy.deepcopy(method)
    step = run(method, given)
    keys = reference.target(given.views[1])[1]
    _, queries = reference.network(given.views[0], given.views[2])
    for name, query in zip(("image", "puzzle"), queries, strict=True):
        expected = losses.info_nce(query, keys, negatives=reference.queue.rows, temperature=0.15)["loss"]
        torch.testing.assert_close(step.terms[name], expected)
    torch.testing.assert_close(step.loss, 0.5 * step.terms["image"] + 0.5 * step.terms["puzzle"])
    torch.testing.assert_close(method.queue.rows[:8], torch.nn.functional.normalize(keys))
    assert torch.equal(method.queue.rows[8:], reference.queue.rows[8:])
    run(reference.eval(), given)
    assert reference.queue.pointer == 0


def test_infomins_momentum_encoder_follows_after_the_optimiser_and_knows_no_puzzle():
    method = build("infomin", momentum=0.75)
    weight = method.network.branch.projector[0].weight
    before = method.target.copy.projector[0].weight.clone()
    run(method, batch("infomin"))
    assert torch.equal(method.target.copy.projector[0].weight, before)
    with torch.no_grad():
        weight.add_(1.0)
    method.after_step(Progress())
    torch.testing.assert_close(method.target.copy.projector[0].weight, before + 0.25)
    assert not [key for key in method.target.state_dict() if "piece" in key or "join" in key]


@pytest.mark.parametrize("name", ["pirl", "infomin"])
def test_a_recipe_without_a_puzzle_is_an_error(name):
    given = batch(name)
    images = given.views[0]
    with pytest.raises(InputError, match="expected puzzles of 9 pieces"):
        build(name)(Batch([images] * len(given.views), given.index))
