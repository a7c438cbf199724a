"""VSE++: the loss in four variants, the text encoder, and the image side of the method."""

import pytest
import torch
from torch import nn

from fullrank import losses
from fullrank.losses.vse import scores
from fullrank.methods import get
from fullrank.networks.branch import UnitRows
from fullrank.networks.text import GRU
from tests.reference.state import load, tensor

# Suffix of the outputs, of the gradients and of the inputs -> options of the loss.
VARIANTS = {
    ("max", "", ""): {"measure": "cosine", "max_violation": True},
    ("sum", "_sum", ""): {"measure": "cosine", "max_violation": False},
    ("order_max", "_order", "_abs"): {"measure": "order", "max_violation": True},
    ("order_sum", None, "_abs"): {"measure": "order", "max_violation": False},
}


def test_every_output_is_checked(fixture_file) -> None:
    file = fixture_file("vsepp_loss")
    checked = {"out_scores", "out_scores_order"} | {f"out_loss_{output}" for output, _, _ in VARIANTS}
    checked |= {f"grad_{side}{gradient}" for _, gradient, _ in VARIANTS if gradient is not None for side in ("im", "s")}
    assert {key for key in file if key.startswith(("out_", "grad_"))} == checked


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda names: names[0])
def test_loss(variant, precision, fixture_file, error_table) -> None:
    file = fixture_file("vsepp_loss")
    output, gradient, inputs = variant
    images, captions = (tensor(file, f"in_{side}{inputs}", precision).requires_grad_() for side in ("im", "s"))
    terms = losses.vse(images, captions, margin=file["params"]["margin"], **VARIANTS[variant])
    terms["loss"].backward()
    key = f"out_loss_{output}"
    error_table.check("vsepp_loss", key, terms["loss"], file[key], precision=precision)
    for side, rows in (("im", images), ("s", captions)):
        if gradient is not None:
            key = f"grad_{side}{gradient}"
            error_table.check("vsepp_loss", key, rows.grad, file[key], precision=precision)


@pytest.mark.parametrize(("measure", "inputs"), [("cosine", ""), ("order", "_abs")])
def test_scores(measure, inputs, fixture_file, error_table) -> None:
    file, key = fixture_file("vsepp_loss"), "out_scores" + ("_order" if inputs else "")
    found = scores(tensor(file, f"in_im{inputs}"), tensor(file, f"in_s{inputs}"), measure)
    error_table.check("vsepp_loss", key, found, file[key])


def text_encoder(file: dict) -> GRU:
    p = file["params"]
    encoder = GRU(p["V"], embedding=p["E"], width=p["D"], layers=p["layers"]).double()
    names = {"embedding.weight": "in_embed"}
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        short = kind.replace("weight", "w").replace("bias", "b")
        names |= {f"gru.{kind}_l{k}": f"in_{short}_{k}" for k in range(p["layers"])}
    load(encoder, file, names)
    return encoder


def test_text_encoder(fixture_file, error_table) -> None:
    file = fixture_file("vsepp_text_encoder")
    name, encoder = "vsepp_text_encoder", text_encoder(file)
    tokens = torch.as_tensor(file["in_tokens"]).long()
    assert ((tokens > 0).sum(1) == torch.as_tensor(file["in_lengths"])).all()
    embedding = UnitRows()(encoder(tokens))
    loss = (embedding * tensor(file, "in_weight")).sum()
    loss.backward()
    ours = {"out_emb": embedding, "out_loss": loss, "grad_embed": encoder.embedding.weight.grad}
    for key, value in encoder.gru.named_parameters():
        kind, _, layer = key.rpartition("_l")
        ours[f"grad_{kind.replace('weight', 'w').replace('bias', 'b')}_{layer}"] = value.grad
    assert ours.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in ours.items():
        error_table.check(name, key, value, file[key])


def test_captions_need_no_order(fixture_file) -> None:
    file = fixture_file("vsepp_text_encoder")
    encoder, tokens = text_encoder(file), torch.as_tensor(file["in_tokens"]).long()
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoder(tokens[order]), encoder(tokens)[order])


def test_image_encoder(fixture_file, error_table) -> None:
    """Features that are computed beforehand go into the linear layer as they are: the head without its first norm."""
    file, name = fixture_file("vsepp_image_encoder"), "vsepp_image_encoder"
    p = file["params"]
    features = nn.Identity()
    features.num_features = p["F"]  # type: ignore[assignment]
    text = nn.Identity()
    text.num_features = p["D"]  # type: ignore[assignment]
    method = get("vse")(features, second=text).double()
    head = method.network.projector[1:]
    load(head, file, {"1.weight": "in_w", "1.bias": "in_b"})
    x = tensor(file, "in_x").requires_grad_()
    embedding = head(x)
    loss = (embedding * tensor(file, "in_weight")).sum()
    loss.backward()
    ours = {"out_emb": embedding, "out_loss": loss, "grad_x": x.grad, "grad_w": head[0].weight.grad}
    ours["grad_b"] = head[0].bias.grad
    assert ours.keys() == {key for key in file if key.startswith(("out_", "grad_"))}
    for key, value in ours.items():
        error_table.check(name, key, value, file[key])
    # Of pictures, the features have length 1 before the layer.
    unit = x / x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(method.embed(x)[1], head(unit))
