"""The catalogue of methods as it looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from fullrank.runs.in_words import value_words

if TYPE_CHECKING:
    from fullrank.runs.catalogue import MethodPage, Option

LONGEST_VENUE = 26  # columns for the paper of a method in the tree


def family_tree(families: Mapping[str, list[MethodPage]]) -> Tree:
    """One branch a family, one leaf a method: its name, what it does, its paper."""
    tree = Tree("", hide_root=True)
    papers = {page.name: page.paper.split(", arXiv")[0] for pages in families.values() for page in pages}
    names, venues = (max(map(len, words), default=1) for words in (papers, papers.values()))
    for family, pages in families.items():
        branch = tree.add(f"[bold]{family}[/]")
        for page in pages:
            columns = Column(width=names), Column(ratio=1), Column(width=min(venues, LONGEST_VENUE), style="dim")
            leaf = Table.grid(*columns, padding=(0, 1), expand=True)
            leaf.add_row(page.name, escape(page.summary), escape(papers[page.name]))
            branch.add(leaf)
    return tree


def method_page(page: MethodPage) -> Group:
    """All about one method."""
    heading = Text.assemble((page.title, "bold"), f"  {page.paper}", (f"  {page.family}", "dim"))
    parts: list[RenderableType] = [paragraph(heading), "", Padding(paragraph(page.equation), (0, 0, 0, 4)), ""]
    parts += map(paragraph, [page.summary, *page.notes, *page.sources])
    parts += options_table("option", page.options)
    parts += options_table("switch", page.switches)
    columns = len(page.views["number"])
    headings = [f"view {number + 1}" for number in range(columns)] if columns > 1 else [""]
    parts += table(["views", *headings], [(row, *words) for row, words in page.views.items()])
    parts += table(["published recipe", ""], page.published.items())
    parts += table(["option of every method", ""], page.general.items())
    commands = [f"  {escape(command)}  [dim]# {purpose}[/]" for purpose, command in page.commands.items()]
    return Group(*parts, "\n".join(["\n[bold]train it[/]", *commands]))


def paragraph(words: str | Text) -> Text:
    """Words that are broken between words, at the width of the terminal."""
    text = words if isinstance(words, Text) else Text(words)
    text.no_wrap, text.overflow = False, "fold"
    return text


def options_table(kind: str, options: Iterable[Option]) -> list[RenderableType]:
    """Options with their published values and what they mean; nothing where there are none."""
    rows = [(f"--{option.name}", value_words(option.default), option.meaning) for option in options]
    return table([kind, "published", "meaning"], rows)


def table(headings: list[str], rows: Iterable[tuple[str, ...]]) -> list[RenderableType]:
    """A table below an empty line; nothing where it has no rows."""
    sheet = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        sheet.add_row(*map(escape, row))
    return ["", sheet] if sheet.row_count else []
