"""Command-line options and YAML files from the signatures in `commands.py`, with jsonargparse."""

from __future__ import annotations

import inspect
import json
import re
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import jsonargparse

from fullrank import commands
from fullrank.docstrings import described, summary
from fullrank.errors import InputError, unknown

# The first argument may stand without its name: `fullrank check photos/`.
FIRST = {
    "train": "data",
    "check": "data",
    "evaluate": "model",
    "embed": "run",
    "export": "run",
    "diagnose": "path",
    "reproduce": "name",
    "compare": "runs",
    "methods": "name",
    "tables": "name",
}


def parse(name: str, arguments: list[str], *, with_json: bool) -> dict[str, Any]:
    """The keyword arguments of command `name`. Raises `InputError` for anything that is not one of them."""
    function = getattr(commands, name)
    if get_type_hints(function)[FIRST[name]] == list[str]:
        arguments = gathered(arguments)
    arguments = normalise(arguments, FIRST[name], flags(function) | {"json"})
    config = read_config(arguments) if name == "train" else {}
    parser = build_parser(name, function, with_json=with_json)
    if name == "train":
        add_method_options(parser, chosen_method(arguments, config))
    if name == "evaluate":
        add_protocol_options(parser, dict(pairs(arguments)).get("protocol", "knn"), set(options_of(function)))
    try:
        if config:
            parser.set_defaults(parser.parse_object(config).as_dict())
        options = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise explain(error, parser) from error
    options.pop("config", None)
    if name == "evaluate":  # what is the protocol's own goes to it
        known = options_of(function)
        own = {key: options.pop(key) for key in list(options) if key not in {*known, "json"}}
        options |= {key: value for key, value in own.items() if value is not None}
    if options.get(FIRST[name], ...) is None and name not in ("methods", "tables"):
        raise InputError(f"fullrank {name} needs {FIRST[name].upper()}: see `fullrank {name} --help`")
    return options


def options_of(function: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of a command."""
    parameters = inspect.signature(function).parameters
    return {name: each for name, each in parameters.items() if each.kind is not inspect.Parameter.VAR_KEYWORD}


def flags(function: Callable) -> set[str]:
    """Options that are true when they stand alone, such as --resume."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.default is False or p.default is True}


def normalise(arguments: list[str], first: str, flags: set[str]) -> list[str]:
    """--batch-size like --batch_size, a bare --resume like --resume true, a leading DATA like --data DATA."""
    if arguments and not arguments[0].startswith("-"):
        arguments = [f"--{first}={arguments[0]}", *arguments[1:]]
    normal: list[str] = []
    for position, argument in enumerate(arguments):
        if argument.startswith("--"):
            option, equals, value = argument[2:].partition("=")
            option = option.replace("-", "_")
            following = arguments[position + 1] if position + 1 < len(arguments) else "--"
            if option in flags and not equals and following not in ("true", "false"):
                equals, value = "=", "true"
            argument = f"--{option}{equals}{value}"
        normal.append(argument)
    return normal


def gathered(arguments: list[str]) -> list[str]:
    """FIRST FIRST FIRST --options as one list in front of the options."""
    first = next((place for place, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    return [json.dumps(arguments[:first]), *arguments[first:]] if first else arguments


def build_parser(name: str, function: Callable, *, with_json: bool) -> jsonargparse.ArgumentParser:
    """The parser of one command, from its signature and docstring."""
    parser = jsonargparse.ArgumentParser(prog=f"fullrank {name}", description=summary(function), exit_on_error=False)
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            add_option(parser, parameter.name, hints[parameter.name], default, described(function))
    if name == "train":
        parser.add_argument("--config", type=str | None, help="YAML file of options, such as the config.yaml of a run")
    if with_json:
        parser.add_argument("--json", type=bool, default=False, help="print one JSON object and nothing else")
    return parser


def add_option(
    parser: jsonargparse.ArgumentParser,
    name: str,
    kind: Any,
    default: Any,
    words: dict[str, str],
    note: str = "",
) -> None:
    """One option; None stands for `not given` whatever its type."""
    parser.add_argument(
        f"--{name}",
        type=kind if default is not None else kind | None,
        default=default,
        help=words.get(name, name) + note,
    )


def chosen_method(arguments: list[str], config: dict[str, Any]) -> str:
    """The method whose options `train` takes: from the command line, the YAML file or the recipe."""
    from fullrank.runs.settings import recipe_for, recipe_settings

    given = config | dict(pairs(arguments))
    recipe = recipe_for(given.get("data", "shapes"), given.get("recipe"))
    return recipe_settings(recipe, given.get("method"))["method"]


def pairs(arguments: list[str]) -> list[tuple[str, str]]:
    """(option, value) for everything on the command line that has this form."""
    found = []
    for position, argument in enumerate(arguments):
        option, equals, value = argument.removeprefix("--").partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        if argument.startswith("--"):
            found.append((option, value if equals else following))
    return found


def add_method_options(parser: jsonargparse.ArgumentParser, method: str) -> None:
    """The keyword arguments of the method's class, as options of `train`."""
    from fullrank import methods
    from fullrank.networks import Switches
    from fullrank.runs.settings import method_options

    kind = methods.get(method)
    hints = get_type_hints(kind.__init__) | get_type_hints(Switches)
    words = described(Switches) | described(kind)
    for name, default in method_options(method).items():
        note = f" ({method}; published: {default if default != '' else 'none'})"
        add_option(parser, name, hints[name], None, words, note)


def add_protocol_options(parser: jsonargparse.ArgumentParser, protocol: str, taken: set[str]) -> None:
    """The keyword arguments of the protocol's function, as options of `evaluate`."""
    functions: list[Callable]
    if protocol in commands.TRAINING_PROTOCOLS:
        from fullrank.training.judging import TRAINED

        functions = [TRAINED.get(protocol)]
    elif protocol == "retrieval":
        from fullrank.runs.match import matched

        functions = [matched]
    elif protocol == "transfer":
        from fullrank.runs.transfer import transferred

        functions = [transferred]
    else:
        from fullrank.runs.evaluate import functions_of

        functions = list(functions_of(protocol).values())
        if protocol == "linear":
            from fullrank.training.probe import linear_as_published

            functions.append(linear_as_published)
    for function in functions:
        hints, words = get_type_hints(function), described(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in taken:
                taken.add(name)
                add_option(parser, name, hints[name], None, words, f" ({protocol}; {parameter.default})")


def read_config(arguments: list[str]) -> dict[str, Any]:
    """The settings in the file named by --config."""
    from fullrank.runs.settings import parse_yaml

    path = dict(pairs(arguments)).get("config")
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(f"config {path}: no such file")
    return parse_yaml(Path(path).read_text(encoding="utf-8"), path)


def of_another_method(name: str, parser: jsonargparse.ArgumentParser) -> InputError | None:
    """The error for an option that belongs to other methods than the one that is trained; None where it does not."""
    if not parser.prog.endswith("train"):
        return None
    from fullrank import methods
    from fullrank.runs.settings import method_options

    owners = [each for each in methods.names() if name in method_options(each)]
    few = f"{', '.join(owners[:4])}{' and others' if len(owners) > 4 else ''}"
    return InputError(f"option '{name}' is one of {few}: choose another --method, or leave it out") if owners else None


def explain(error: ArgumentError, parser: jsonargparse.ArgumentParser) -> InputError:
    """One line for what jsonargparse says in many."""
    text = str(error)
    if wrong := re.search(r"[Uu]nrecognized arguments: (\S+)", text):
        if not wrong.group(1).startswith("-"):
            return InputError(f"'{wrong.group(1)}' stands alone: give options as --name value")
        known = [
            option[2:] for action in parser._actions for option in action.option_strings if option.startswith("--")
        ]
        name = wrong.group(1).lstrip("-").partition("=")[0]
        return of_another_method(name, parser) or unknown("option", name, known)
    key, given = re.search(r'key "(\w+)"', text), re.search(r"Given value: (.*)", text)
    expected = re.findall(r"Expected an? ([^\n]+)", text)
    if key and given:
        kinds = " or ".join(re.sub(r"<class '(\w+)'>", r"\1", kind) for kind in expected if "NoneType" not in kind)
        kinds = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", kinds)
        return InputError(f"option {key.group(1)} is '{given.group(1)}': expected {kinds or 'another value'}")
    return InputError(" ".join(text.split()))
