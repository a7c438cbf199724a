"""Captions as numbers: 0 pads, words of less than four occurrences are unknown, pieces know every script."""

import builtins
import json

import pytest

from fullrank.data.tokens import LONGEST, Tokenizer, model_tokenizer, train_tokenizer
from fullrank.errors import InputError

CAPTIONS = ["A dog runs.", "a DOG sleeps.", "the dog eats.", "the dog, a cat.", "the cat. the rare"] * 2


def words_of(tokenizer):
    return {number + 1: word for word, number in json.loads(tokenizer.text)["model"]["vocab"].items()}


def test_words_as_in_vsepp():
    tokenizer = train_tokenizer("words", CAPTIONS)
    words = words_of(tokenizer)
    # Start, end and unknown, then by frequency; `cat` occurs four times, `rare` two times.
    assert [words[n] for n in (1, 2, 3)] == ["<start>", "<end>", "<unk>"]
    assert set(words.values()) - {"<start>", "<end>", "<unk>"} == {"dog", "the", ".", "a", "cat"}
    assert (tokenizer.vocabulary, tokenizer.unknown) == (9, 3)
    tokens = tokenizer(["The dog barks.", "A cat"])
    assert [[words.get(int(n), 0) for n in row] for row in tokens] == [
        ["<start>", "the", "dog", "<unk>", ".", "<end>"],
        ["<start>", "a", "cat", "<end>", 0, 0],
    ]


def test_pieces_know_every_script():
    tokenizer = train_tokenizer("pieces", CAPTIONS)
    assert tokenizer.unknown is None
    for caption in ("dog", "žluťoučký kůň", "猫が好き", "🐕"):
        (tokens,) = tokenizer([caption])
        assert len(tokens) > 2
        assert tokens.min() >= 1
        assert tokens.max() < tokenizer.vocabulary
    one, other = tokenizer(["猫猫", "犬犬"])
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_the_same_captions_make_the_same_tokenizer(kind):
    first, second = (train_tokenizer(kind, CAPTIONS) for _ in range(2))
    assert first.text == second.text
    assert Tokenizer(first.text)(CAPTIONS).equal(first(CAPTIONS))


def test_long_captions_are_cut_and_empty_ones_have_marks():
    tokenizer = train_tokenizer("words", CAPTIONS)
    tokens = tokenizer(["dog " * 1000, ""])
    assert tokens.shape == (2, LONGEST)
    assert (tokens[0, 0], tokens[0, -1]) == (1, 2)
    assert tokens[1].tolist() == [1, 2] + [0] * (LONGEST - 2)


def test_the_tokenizer_of_a_model_in_a_folder(tmp_path):
    own = train_tokenizer("words", CAPTIONS)
    (tmp_path / "tokenizer.json").write_text(own.text)
    assert model_tokenizer(str(tmp_path))(CAPTIONS).equal(own(CAPTIONS))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"hf:.* has no tokenizer that can be loaded \(.*\): give a model of the hub"):
        model_tokenizer(str(tmp_path))


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'fullrank\[text\]'"):
        train_tokenizer("words", CAPTIONS)
