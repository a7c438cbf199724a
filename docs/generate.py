"""Write docs/methods: an index with the family tree, and a page a method, from the registry and the docstrings.

    python docs/generate.py

A test compares what is written with what would be: nothing in that folder is edited by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fullrank.runs.catalogue import MethodPage, Option, family_tree
from fullrank.runs.in_words import value_words

FOLDER = Path(__file__).parent / "methods"
INDEX = "README.md"


def pages() -> dict[str, str]:
    """File name -> text, for everything in the folder."""
    families = family_tree().families
    found = {f"{page.name}.md": method_page(page) for members in families.values() for page in members}
    return {INDEX: index_page(families)} | found


def index_page(families: dict[str, list[MethodPage]]) -> str:
    """The family tree: every method with what it does and its paper."""
    count = sum(map(len, families.values()))
    parts = [
        "# Methods",
        f"{count} methods, each one short file in `src/fullrank/methods`. `fullrank methods` prints this tree, "
        "`fullrank methods NAME` what stands on a page.",
    ]
    for family, members in families.items():
        lines = [f"- [`{page.name}`]({page.name}.md) {prose(page.summary)} {linked(page.paper)}" for page in members]
        parts += [f"## {family.capitalize()}", "\n".join(lines)]
    return joined(parts)


def method_page(page: MethodPage) -> str:
    """Equation, paper, options, views, recipe and commands of one method."""
    parts = [
        f"# {page.title}",
        f"[{page.family}]({INDEX}) · {linked(page.paper)} · `fullrank methods {page.name}`",
        f"```text\n{page.equation}\n```",
        *map(prose, [page.summary, *page.notes, *page.sources]),
        "## Train it",
        "\n\n".join(
            f"{purpose[0].upper()}{purpose[1:]}:\n\n```sh\n{line}\n```" for purpose, line in page.commands.items()
        ),
        *options_section("Options", page.options),
        *options_section("Switches of the siamese network", page.switches),
        "### Options of every method",
        table(["option", ""], [(f"`{option}`", prose(words)) for option, words in page.general.items()]),
        "## As published",
        table(["", ""], [(row, prose(words)) for row, words in page.published.items()]),
        "### Views",
        table(view_headings(page), [(row, *words) for row, words in page.views.items()]),
    ]
    return joined(parts)


def options_section(title: str, options: Sequence[Option]) -> list[str]:
    """A heading and a table; nothing where there are no options."""
    rows = [(f"`--{option.name}`", f"`{value_words(option.default)}`", prose(option.meaning)) for option in options]
    return [f"### {title}", table(["option", "published", "meaning"], rows)] if rows else []


def view_headings(page: MethodPage) -> list[str]:
    """One column for every kind of view."""
    columns = len(page.views["number"])
    return ["at 224 px", *(f"view {number + 1}" if columns > 1 else "all views" for number in range(columns))]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; bars inside cells do not end them."""
    lines = [headings, ["---"] * len(headings), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def prose(text: str) -> str:
    """Words of a docstring, so that asterisks and angle brackets outside of code stay what they are."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)


def linked(paper: str) -> str:
    """A paper with its arXiv number as a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def joined(parts: Iterable[str]) -> str:
    """Paragraphs as a file."""
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the folder anew."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
