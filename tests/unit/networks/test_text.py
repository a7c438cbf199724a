"""Text encoders: padding changes nothing, lengths come in any order, names and sizes are checked."""

import pytest
import torch

from fullrank.errors import InputError
from fullrank.networks.text import GRU, Transformer, create_text_encoder, is_text_encoder, token_kind

VOCABULARY = 20
TOKENS = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0], [3, 0, 0, 0], [2, 2, 9, 0]])
NAMES = ["gru:width=6,embedding=5", "gru:width=6,layers=2", "transformer:width=8,layers=2,heads=2"]


def make(name):
    torch.manual_seed(0)
    return create_text_encoder(name, VOCABULARY)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_company_change_nothing(name):
    encoder = make(name).eval()
    together = encoder(TOKENS)
    assert together.shape == (4, encoder.num_features)
    for row, tokens in zip(together, TOKENS, strict=True):
        torch.testing.assert_close(encoder(tokens[None, : int((tokens > 0).sum())])[0], row)
        torch.testing.assert_close(encoder(torch.nn.functional.pad(tokens[None], (0, 5)))[0], row)


@pytest.mark.parametrize("name", NAMES)
def test_order_and_words_matter(name):
    encoder = make(name).eval()
    one, turned, other = encoder(torch.tensor([[4, 5, 6], [6, 5, 4], [4, 5, 7]]))
    assert not torch.allclose(one, turned, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_words_of_the_batch_only(name):
    encoder = make(name)
    encoder(TOKENS).square().sum().backward()
    reached = encoder.embedding.weight.grad.abs().sum(1) > 0
    assert set(torch.nonzero(reached).flatten().tolist()) == set(TOKENS.unique().tolist()) - {0}
    assert all(value.grad.abs().sum() > 0 for value in encoder.parameters() if value.ndim > 1)


def test_a_caption_without_words_is_no_error():
    for name in NAMES:
        assert torch.isfinite(make(name)(torch.zeros(2, 3, dtype=torch.long))).all()


def test_the_gru_is_that_of_the_loop():
    encoder = make("gru:width=6,embedding=5")
    cell = torch.nn.GRUCell(5, 6)
    for name, value in cell.named_parameters():
        value.data.copy_(getattr(encoder.gru, f"{name}_l0"))
    for row, tokens in zip(encoder(TOKENS), TOKENS, strict=True):
        state = torch.zeros(1, 6)
        for token in tokens[tokens > 0]:
            state = cell(encoder.embedding.weight[token][None], state)
        torch.testing.assert_close(row, state[0])
    assert encoder.embedding.weight.abs().max() <= 0.1


def test_the_published_sizes():
    encoder = create_text_encoder("gru", VOCABULARY)
    assert isinstance(encoder, GRU)
    assert (encoder.num_features, tuple(encoder.embedding.weight.shape)) == (1024, (VOCABULARY, 300))
    assert isinstance(create_text_encoder("transformer", VOCABULARY), Transformer)


def test_names():
    assert all(map(is_text_encoder, [*NAMES, "gru", "transformer", "hf:bert-base-uncased"]))
    assert not any(map(is_text_encoder, ["resnet18", "gru_small", ""]))
    kinds = [token_kind(name) for name in ("gru:width=4", "transformer", "hf:some/model")]
    assert kinds == ["words", "pieces", "hf:some/model"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("grus", "unknown text encoder 'grus': did you mean 'gru'"),
        ("gru:wdith=4", "unknown size of gru 'wdith': did you mean 'width'"),
        ("gru:heads=4", "unknown size of gru 'heads'"),
        ("gru:width=many", "give a whole number, such as width=64"),
        ("gru:width=0", "give a whole number, such as width=64"),
        ("transformer:width=30", "width 30 of transformer does not divide by its 4 heads"),
    ],
)
def test_wrong_names_and_sizes(name, words):
    with pytest.raises(InputError) as error:
        create_text_encoder(name, VOCABULARY)
    assert words in str(error.value)


@pytest.fixture
def model_folder(tmp_path):
    """A tiny BERT with random weights, as `save_pretrained` writes it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=VOCABULARY, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_hugging_face_model(model_folder):
    encoder = create_text_encoder(f"hf:{model_folder}", VOCABULARY).eval()
    together = encoder(TOKENS)
    assert together.shape == (4, 8)
    for row, tokens in zip(together, TOKENS, strict=True):
        present = tokens[tokens > 0]
        states = encoder.model(input_ids=present[None] - 1).last_hidden_state  # the model counts from 0
        torch.testing.assert_close(states.mean(1)[0], row)
    encoder.train()(TOKENS).square().sum().backward()
    assert all(value.grad is not None for value in encoder.parameters())


def test_a_hugging_face_model_that_is_not_there(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"hf:.*nothing cannot be loaded \(.*\): give a text model of the hub, with"):
        create_text_encoder(f"hf:{tmp_path}/nothing", VOCABULARY)
