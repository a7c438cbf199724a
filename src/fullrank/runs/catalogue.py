"""What there is to know about a method, gathered from its class, its docstrings and the recipes.

The command `fullrank methods` and the pages in docs/methods show the same facts.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from fullrank import methods
from fullrank.docstrings import described, notes, one_line, summary
from fullrank.methods import FAMILIES, Method
from fullrank.networks import Switches
from fullrank.runs import on_screen
from fullrank.runs.in_words import optimization_rows, view_rows
from fullrank.runs.settings import (
    EMBEDDED,
    RECIPES,
    load_recipe,
    method_options,
    recipe_names,
    resolve,
    switch_names,
    train_options,
    usual_warmup,
)

PICTURE = 224  # pixels a side, for which the published views are shown


@dataclass(frozen=True)
class Option:
    """An option of a method: `default` is the published value."""

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class MethodPage:
    """Everything about one method, in words and plain values."""

    name: str
    title: str
    family: str
    equation: str
    summary: str
    notes: list[str]
    paper: str  # short: authors, venue, arXiv number
    sources: list[str]  # in full, with the authors' code
    options: list[Option]
    switches: list[Option]  # those of the siamese network, where it has one
    views: dict[str, list[str]]  # name of a row -> its words for every kind of view
    published: dict[str, str]
    general: dict[str, str]  # options of every method that not every method can have, and why not
    commands: dict[str, str]  # what for -> the command

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def render(self) -> Any:
        """The page on a terminal."""
        return on_screen.method_page(self)


@dataclass(frozen=True)
class FamilyTree:
    """All methods, by family."""

    families: dict[str, list[MethodPage]]

    def to_dict(self) -> dict[str, Any]:
        """Every family with its methods: name, title, what it does, paper."""
        shown = ("name", "title", "summary", "paper")
        return {
            family: [{field: getattr(page, field) for field in shown} for page in pages]
            for family, pages in self.families.items()
        }

    def render(self) -> Any:
        """The tree on a terminal."""
        return on_screen.family_tree(self.families)


def describe_methods(name: str | None = None) -> FamilyTree | MethodPage:
    """The family tree, or the page of one method. Raises `InputError` for a method that does not exist."""
    return family_tree() if name is None else page_of(name)


def family_tree() -> FamilyTree:
    """Every registered method in its family, families as the talk has them, methods by name."""
    pages = [page_of(name) for name in methods.names()]
    grown = {family: [page for page in pages if page.family == family] for family in FAMILIES}
    return FamilyTree({family: pages for family, pages in grown.items() if pages})


def page_of(name: str) -> MethodPage:
    """The facts about a method."""
    kind = methods.get(name)
    title, _, equation = module_paragraphs(kind)[0].partition(": ")
    options = list(options_of(name))
    switches = switch_names() if "switches" in inspect.signature(kind.__init__).parameters else []
    return MethodPage(
        name=name,
        title=title,
        family=kind.family,
        equation=equation.rstrip("."),
        summary=summary(kind),
        notes=notes(kind),
        paper=kind.paper,
        sources=module_paragraphs(kind)[1:],
        options=[option for option in options if option.name not in switches],
        switches=[option for option in options if option.name in switches],
        views=view_rows(kind.views(PICTURE)),
        published=optimization_rows(kind.published),
        general=general_options(kind),
        commands=commands_for(name),
    )


def module_paragraphs(kind: type[Method]) -> list[str]:
    """The docstring of the method's file: the equation, then where it comes from."""
    module = inspect.getmodule(kind)
    text = inspect.cleandoc((module and module.__doc__) or "")
    return [one_line(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]


def options_of(name: str) -> Iterator[Option]:
    """Every option of a method with its published value and what it means."""
    meanings = described(Switches) | described(methods.get(name))
    for key, default in method_options(name).items():
        yield Option(key, default, meanings.get(key, ""))


def general_options(kind: type[Method]) -> dict[str, str]:
    """What the method makes of options that not every method can have."""
    if kind.second_is_text or kind.branch_channels:
        second = "always two networks, the second for captions" if kind.second_is_text else "always two networks"
    else:
        second = f"no: {kind.one_network}" if kind.one_network else "yes"
    return {
        "--branches separate, --backbone2": second,
        "--accumulate": f"no: {kind.no_accumulation}" if kind.no_accumulation else "yes",
        "--regularize.variance, .covariance": "yes: VICReg's terms, added to the loss",
    }


def commands_for(name: str) -> dict[str, str]:
    """The commands that train a method: on the embedded set, on any pictures, as published."""
    found = {
        "on the embedded set": f"fullrank train --method {name}",
        "on your pictures": on_pictures(name),
        "with the published numbers": published_command(name),
    }
    for recipe in recipe_names():
        if recipe not in ("default", *EMBEDDED) and load_recipe(recipe).get("method") == name:
            line = re.search(r"^#\s*command:\s*(.*)", (RECIPES / f"{recipe}.yaml").read_text("utf-8"), re.MULTILINE)
            found[f"recipe {recipe}"] = line.group(1) if line else f"fullrank train --recipe {recipe}"
    return found


def on_pictures(name: str) -> str:
    """The command for a folder of pictures, with captions where the method needs them."""
    captions = " --captions captions.jsonl" if methods.get(name).second_is_text else ""
    return f"fullrank train --data photos/{captions} --method {name}"


def published_command(name: str) -> str:
    """The command that leaves nothing of the method to the default recipe but the backbone."""
    published = methods.get(name).published
    wanted = {each.name: getattr(published, each.name) for each in fields(published) if each.name in train_options()}
    wanted |= {"end_factor": published.schedule.end_factor, "warmup_epochs": published.schedule.warmup_epochs}
    wanted |= method_options(name)
    usual = vars(resolve({"data": "photos/", "method": name}))
    if usual["warmup_epochs"] is None:
        usual["warmup_epochs"] = usual_warmup(published, published.epochs)
    given = {key: value for key, value in wanted.items() if value is not None and usual[key] != value}
    options = [f"--{key} {shlex.quote(typed(value))}" for key, value in given.items()]
    return " ".join([on_pictures(name), *options])


def typed(value: Any) -> str:
    """A value as it stands on a command line."""
    return json.dumps(value) if isinstance(value, bool | tuple | list) else str(value)
