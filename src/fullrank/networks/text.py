"""Text encoders: captions as whole numbers (n, l), padded with 0 -> representations (n, `num_features`)."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fullrank.errors import InputError, unknown

HUB = "hf:"  # in front of the name or the folder of a Hugging Face model


class GRU(nn.Module):
    """Word embeddings and a GRU; its state after the last word, as in VSE++ (fartashf/vsepp, model.py EncoderText).

    Captions come in any order; the authors' code wants them sorted by length.

    Args:
        vocabulary: number of words, 0 among them.
        embedding: width of a word's embedding, drawn from -0.1 to 0.1.
        width: of the state, and of what comes out.
        layers: of the GRU.
    """

    tokens: ClassVar = "words"
    compiles: ClassVar = False  # torch's kernel for sequences of many lengths is one already

    def __init__(self, vocabulary: int, *, embedding: int = 300, width: int = 1024, layers: int = 1) -> None:
        super().__init__()
        self.num_features = width
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.gru = nn.GRU(embedding, width, layers, batch_first=True)

    def forward(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n y"]:
        """The last layer's state after the last word of each caption."""
        words, count = self.embedding(tokens), lengths(tokens).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(words, count, batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1][-1]


class Transformer(nn.Module):
    """A pre-norm transformer over word pieces with learnt positions; the mean over the pieces of a caption.

    Args:
        vocabulary: number of pieces, 0 among them.
        width: of a piece's embedding, and of what comes out.
        layers: blocks of attention and perceptron.
        heads: of the attention.
        longest: pieces of a caption, at most.
    """

    tokens: ClassVar = "pieces"

    def __init__(
        self, vocabulary: int, *, width: int = 256, layers: int = 4, heads: int = 4, longest: int = 128
    ) -> None:
        super().__init__()
        self.num_features = width
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(longest, width))
        for table in (self.embedding.weight, self.positions):
            nn.init.normal_(table, std=0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        for weight in self.blocks.parameters():  # each block starts from weights of its own
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n y"]:
        """The mean over the pieces of each caption."""
        padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths(tokens)[:, None]
        pieces = self.blocks(self.embedding(tokens) + self.positions[: tokens.shape[1]], src_key_padding_mask=padding)
        return mean_of(pieces, ~padding)


class HuggingFaceText(nn.Module):
    """A text model of the Hugging Face hub, or one in a folder; the mean over the pieces of a caption.

    Args:
        name: of the model, or its folder.

    Raises `InputError` where it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise InputError(
                f"{HUB}{name} needs the package transformers: pip install 'fullrank[transformers]'"
            ) from error
        try:
            self.model = AutoModel.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{HUB}{name} cannot be loaded ({reason}): give a text model of the hub, with a connection to it, or "
                "the folder of one"
            ) from error
        self.num_features = int(self.model.config.hidden_size)
        if getattr(self.model, "pooler", None) is not None:  # reads the first piece only, and is not used here
            self.model.pooler = None

    def forward(self, tokens: Int[Tensor, "n l"]) -> Float[Tensor, "n y"]:
        """The mean over the pieces of each caption; number k is the model's k - 1."""
        present = tokens > 0
        given = {"input_ids": (tokens - 1).clamp_min(0), "attention_mask": present.long()}
        return mean_of(self.model(**given).last_hidden_state, present)


def lengths(tokens: Int[Tensor, "n l"]) -> Int[Tensor, " n"]:
    """Words of every caption, at least 1."""
    return (tokens > 0).sum(1).clamp_min(1)


def mean_of(pieces: Float[Tensor, "n l y"], present: Tensor) -> Float[Tensor, "n y"]:
    """The mean over the pieces that are present, (n, l)."""
    weights = present[..., None].to(pieces.dtype)
    return (pieces * weights).sum(1) / weights.sum(1).clamp_min(1)


TEXT_ENCODERS: dict[str, type[GRU] | type[Transformer]] = {"gru": GRU, "transformer": Transformer}


def is_text_encoder(name: str) -> bool:
    """Whether a name stands for a text encoder: `gru`, `gru:width=256`, `transformer`, `hf:NAME`."""
    return name.startswith(HUB) or name.partition(":")[0] in TEXT_ENCODERS


def token_kind(name: str) -> str:
    """What the encoder of this name reads: words, pieces, or those of its own tokenizer, which has the name."""
    return name if name.startswith(HUB) else TEXT_ENCODERS[name.partition(":")[0]].tokens


def create_text_encoder(name: str, vocabulary: int) -> nn.Module:
    """The text encoder of this name for so many words; its sizes may follow, as in `gru:width=256,embedding=64`.

    Raises `InputError` for an unknown name or size.
    """
    if name.startswith(HUB):
        return HuggingFaceText(name.removeprefix(HUB))
    name, _, sizes = name.partition(":")
    if name not in TEXT_ENCODERS:
        raise unknown("text encoder", name, [*TEXT_ENCODERS, f"{HUB}NAME"])
    kind = TEXT_ENCODERS[name]
    known = [each for each in inspect.signature(kind).parameters if each != "vocabulary"]
    options = {}
    for part in filter(None, sizes.split(",")):
        size, _, value = part.partition("=")
        if size not in known:
            raise unknown(f"size of {name}", size, known)
        if not value.isdigit() or int(value) < 1:
            raise InputError(f"size '{part}' of {name}: give a whole number, such as {size}=64")
        options[size] = int(value)
    if "heads" in known and (width := options.get("width", 0)) % (heads := options.get("heads", 4)):
        raise InputError(f"width {width} of {name} does not divide by its {heads} heads: give another of the two")
    return kind(vocabulary, **options)
