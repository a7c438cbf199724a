"""CMC: steps against its two memory banks through the method; colour spaces; the queues of its second version."""

import pytest
import torch
from torch import nn

from fullrank import losses
from fullrank.methods import DataFacts, get
from fullrank.methods.cmc import CMC
from fullrank.networks import Queue
from fullrank.networks.split_colours import SPACES, SplitColours
from tests.reference.state import tensor


def build(file: dict) -> CMC:
    """The method around identities, with the banks of the file."""
    p = file["params"]
    encoders = [nn.Identity(), nn.Identity()]
    for encoder in encoders:
        encoder.num_features = p["D"]
    options = {"temperature": p["T"], "negatives": p["K"], "momentum": p["momentum"], "softmax": p["softmax"]}
    facts = DataFacts(samples=p["N"])
    method = get("cmc")(encoders[0], second=encoders[1], projector="none", facts=facts, **options).double()
    for key, each in memories(method).items():
        each.bank.rows.copy_(tensor(file, f"in_memory_{key}"))
    return method


def memories(method: CMC) -> dict[str, nn.Module]:
    return {"l": method.lightness, "ab": method.colours}


@pytest.mark.parametrize("name", ["cmc_nce", "cmc_softmax"])
def test_steps(name, fixture_file, error_table, logits) -> None:
    file = fixture_file(name)
    method = build(file)
    found = {}
    for step in range(file["params"]["steps"]):
        given = {key: tensor(file, f"in_{key}_{step}").requires_grad_() for key in ("l", "ab")}
        method.lightness.bank.draw = lambda index, negatives, step=step: tensor(file, f"in_idx_{step}")
        terms = method.contrast(given["l"], given["ab"], tensor(file, f"in_index_{step}"))
        loss = terms["lightness"] + terms["colours"]
        loss.backward()
        scores = dict(zip(("l", "ab"), [each for each in logits if each.requires_grad][-2:], strict=True))
        if not method.lightness.softmax:
            constants = torch.stack([method.colours.log_partition, method.lightness.log_partition])
            scores = {key: (each - z).exp() for (key, each), z in zip(scores.items(), constants, strict=True)}
            found[f"out_Z_{step}"] = constants.exp()
        found |= {f"out_scores_{key}_{step}": each for key, each in scores.items()}
        found |= {f"grad_{key}_{step}": each.grad for key, each in given.items()}
        found |= {f"out_memory_{key}_{step}": each.bank.rows.clone() for key, each in memories(method).items()}
        found |= {
            f"out_loss_{step}": loss,
            f"out_loss_l_{step}": terms["lightness"],
            f"out_loss_ab_{step}": terms["colours"],
        }
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])


def test_colour_spaces(fixture_file, error_table) -> None:
    name = "cmc_color"
    file = fixture_file(name)
    rgb = torch.as_tensor(file["in_rgb"]).permute(2, 0, 1)[None].double() / 255
    found = {}
    for space, stated in file["params"]["stats"].items():
        centre, width = SPACES[space][1:]
        error_table.check(name, "mean", centre, stated["mean"])
        error_table.check(name, "std", width, stated["std"])
        encoders = SplitColours(one(), one(), space, (0.0,) * 3, (1.0,) * 3)
        found[f"out_{space}"] = SPACES[space].convert(rgb)[0].permute(1, 2, 0)
        found[f"out_{space}_norm"] = torch.cat(encoders.split(rgb), 1)[0]
    assert found.keys() == {key for key in file if key.startswith("out_")}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])


def one() -> nn.Module:
    encoder = nn.Identity()
    encoder.num_features = 1
    return encoder


def test_queues_of_the_second_version(fixture_file, error_table, logits) -> None:
    """Lightness meets the keys of the colours and the other way round; a puzzle meets those of its own side.

    The method has banks, as published; this is the loss and the queue of MoCo, called as the authors' trainer does.
    """
    name = "cmc_v2_moco"
    file = fixture_file(name)
    p = file["params"]
    queues = [Queue(p["K"], p["D"]).double() for _ in range(2)]
    for side, queue in enumerate(queues, 1):
        queue.rows.copy_(tensor(file, f"in_queue_{side}"))
    found = {}
    for step in range(p["steps"]):
        k1, k2 = (tensor(file, f"in_k{side}_{step}") for side in (1, 2))
        queries = ("q1", "q2", "q1_jig", "q2_jig")
        given = {key: tensor(file, f"in_{key}_{step}").requires_grad_() for key in queries}
        rows = [queue.rows.clone() for queue in queues]
        options = {"temperature": p["T"], "normalize": False}
        one, two, jig_two, jig_one = (
            losses.info_nce(given[query], key, negatives=memory, **options)["loss"]
            for query, key, memory in (
                ("q1", k2, rows[1]),
                ("q2", k1, rows[0]),
                ("q2_jig", k2, rows[1]),
                ("q1_jig", k1, rows[0]),
            )
        )
        with_puzzles = (1 - p["beta"]) * (one + two) + p["beta"] * (jig_two + jig_one)
        with_puzzles.backward()
        for queue, keys in zip(queues, (k1, k2), strict=True):
            queue.push(keys)
        found |= {f"out_loss_{step}": one + two, f"out_loss_jig_{step}": with_puzzles}
        found |= {f"out_queue_{side}_{step}": queue.rows.clone() for side, queue in enumerate(queues, 1)}
        found |= {f"grad_{key}_{step}": rows.grad for key, rows in given.items()}
        found |= {f"out_logits1_{step}": logits[-4], f"out_logits1_jig_{step}": logits[-2]}
    assert found.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in found.items():
        error_table.check(name, key, value, file[key])
