"""docs/methods holds what `python docs/generate.py` writes: a page that is missing or stale is a failure."""

import importlib.util
from pathlib import Path

from fullrank import methods

DOCS = Path(__file__).parents[2] / "docs"


def generator():
    specification = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_folder_is_what_would_be_written():
    expected = generator().pages()
    written = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("*")}
    again = "run `python docs/generate.py`"
    assert written.keys() == expected.keys(), again
    stale = [name for name, text in expected.items() if written[name] != text]
    assert not stale, again


def test_every_method_has_a_page_and_a_line_in_the_index():
    expected = generator().pages()
    assert {f"{name}.md" for name in methods.names()} < expected.keys()
    for name in methods.names():
        assert f"[`{name}`]({name}.md)" in expected["README.md"]
        assert f"fullrank train --method {name}\n" in expected[f"{name}.md"]


def test_cells_and_words_survive_markdown():
    module = generator()
    assert module.prose("names such as network.*, `a*b` and n < d") == r"names such as network.\*, `a*b` and n \< d"
    assert module.table(["a", "b"], [("|x|", "y")]).splitlines()[-1] == r"| \|x\| | y |"
    assert module.linked("A, 2020, arXiv:2002.05709") == "A, 2020, [arXiv:2002.05709](https://arxiv.org/abs/2002.05709)"
