"""What docstrings say, for the help of the commands and the pages of the methods: nothing is written down twice."""

from __future__ import annotations

import inspect
from typing import Any

import docstring_parser


def described(thing: Any) -> dict[str, str]:
    """What a docstring says of every argument or attribute, each on one line."""
    parsed = docstring_parser.parse(inspect.getdoc(thing) or "")
    return {entry.arg_name: one_line(entry.description) for entry in parsed.params}


def summary(thing: Any) -> str:
    """The first sentence or two of a docstring: what stands above its first empty line."""
    return one_line(docstring_parser.parse(inspect.getdoc(thing) or "").short_description)


def notes(thing: Any) -> list[str]:
    """The paragraphs between the summary and the arguments."""
    text = docstring_parser.parse(inspect.getdoc(thing) or "").long_description or ""
    return [one_line(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]


def one_line(text: str | None) -> str:
    """Text without line breaks."""
    return " ".join((text or "").split())
