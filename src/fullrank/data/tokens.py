"""Captions as whole numbers: a tokenizer trained on the captions at hand, or that of a Hugging Face model.

Words and word pieces are numbered from 1 on, whatever the tokenizer's own numbers are, since 0 pads short captions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import InputError

Kind = Literal["words", "pieces"]
RAREST = 4  # occurrences: rarer words are one unknown word, as in VSE++
PIECES = 8192  # of words, at most
LONGEST = 128  # words or pieces of a caption; what follows is cut off
START, END, UNKNOWN = "<start>", "<end>", "<unk>"


class Tokenizer:
    """Captions -> numbers (n, l), padded with 0 at the end.

    Args:
        text: as Hugging Face's tokenizers writes it, the content of a `tokenizer.json`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokenizer = _library().Tokenizer.from_str(text)
        self._tokenizer.no_padding()

    @property
    def vocabulary(self) -> int:
        """How many numbers there are, 0 among them."""
        return int(self._tokenizer.get_vocab_size()) + 1

    @property
    def unknown(self) -> int | None:
        """The number of the unknown word, where there is one."""
        found = self._tokenizer.token_to_id(UNKNOWN)
        return None if found is None else found + 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Numbers of every caption, int32 (n, l); l is the length of the longest."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(captions))]
        numbers = np.zeros((len(encoded), max(map(len, encoded), default=0) or 1), dtype=np.int32)
        for row, ids in zip(numbers, encoded, strict=True):
            row[: len(ids)] = np.add(ids, 1)
        return torch.from_numpy(numbers)


def train_tokenizer(kind: Kind, captions: Sequence[str]) -> Tokenizer:
    """A tokenizer of small letters: whole words with marks of start and end, or byte pairs.

    Words are runs of letters and digits, or of other signs; VSE++ splits them with NLTK, which keeps "'s" whole.
    Those that occur less than four times are one unknown word. Byte pairs know no unknown word in any script.
    """
    library = _library()
    normalizer = library.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    options: dict[str, Any] = {"special_tokens": [START, END, UNKNOWN], "show_progress": False}
    if kind == "words":
        tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
        trainer = library.trainers.WordLevelTrainer(min_frequency=RAREST, vocab_size=1 << 24, **options)
    else:
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        options["special_tokens"].remove(UNKNOWN)
        trainer = library.trainers.BpeTrainer(vocab_size=PIECES, min_frequency=2, initial_alphabet=alphabet, **options)
    tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(captions, trainer)
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    tokenizer.post_processor = library.processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
    tokenizer.enable_truncation(LONGEST)
    return Tokenizer(tokenizer.to_str())


def model_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a Hugging Face model, by its name or its folder.

    Raises `InputError` where it cannot be loaded.
    """
    library = _library()
    try:
        file = Path(name) / "tokenizer.json"
        own = library.Tokenizer.from_file(str(file)) if file.is_file() else library.Tokenizer.from_pretrained(name)
    except Exception as error:  # a missing file, a wrong name, no network: its message says which
        reason = " ".join(str(error).split())
        raise InputError(
            f"hf:{name} has no tokenizer that can be loaded ({reason}): give a model of the hub, with a connection to "
            "it, or a folder with a tokenizer.json"
        ) from error
    own.enable_truncation(LONGEST)
    return Tokenizer(own.to_str())


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("captions need the package tokenizers: pip install 'fullrank[text]'") from error
    # One thread is fast enough, and threads do not go with the processes that decode pictures.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return tokenizers
