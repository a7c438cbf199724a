"""From what the user gave to the settings of a run: recipe, then defaults, every name checked."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from fullrank import commands, methods
from fullrank.errors import InputError, unknown
from fullrank.methods import Optimization, Regularizer
from fullrank.networks import Switches

# Options that say where and how a run is carried out: they may change when it is resumed.
FREE = {
    "output", "resume", "overwrite", "placement", "workers", "accelerator", "devices", "num_nodes", "strategy",
    "logger", "save_minutes", "report", "plan", "compile", "channels_last",
}  # fmt: skip
EMBEDDED = ("shapes", "digits")
# What a recipe says of the backbone that it names: another one that the user names goes without.
OF_THE_BACKBONE = ("stem_stride", "backbone_options")
# Keyword arguments of a method that the library fills in, and the one that stands for the options of `Switches`.
FILLED_IN = ("facts", "second", "switches")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(Path(str(entry)).stem for entry in RECIPES.iterdir() if str(entry).endswith(".yaml"))


RECIPES = resources.files("fullrank") / "recipes"


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a packaged recipe or of a YAML file. Raises `InputError` when there is none."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"recipe {name}: no such file")
        return parse_yaml(path.read_text(encoding="utf-8"), name)
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    return copy.deepcopy(_packaged(name))


@functools.cache
def _packaged(name: str) -> dict[str, Any]:
    """A packaged recipe; tables resolve the settings of many runs, and PyYAML takes a tenth of a second for one."""
    return parse_yaml((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"), name)


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """A flat mapping of settings, every key known and given once; `methods` holds one of each method that differs."""
    try:
        content = yaml.load(text, EachKeyOnce) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{origin} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{origin}: give settings as 'name: value' lines")
    of_runs, of_methods = set(train_options()), {name: set(method_options(name)) for name in methods.names()}
    refuse_unknown(content, of_runs.union(*of_methods.values(), {"methods"}), origin)
    for name, section in (content.get("methods") or {}).items():
        methods.get(name)  # raises for an unknown one
        refuse_unknown(section or {}, of_runs | of_methods[name], f"{origin}, methods, {name}")
    return content


def refuse_unknown(settings: Mapping[str, Any], known: set[str], origin: str) -> None:
    """Raise `InputError` for the first setting that is not known."""
    for key in settings:
        if key not in known:
            raise unknown(f"setting in {origin}", str(key), known)


class EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML forgets the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises `yaml.YAMLError` for a key that stands twice."""
        given = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in given:
            if given.count(key) > 1:
                raise yaml.YAMLError(f"'{key}' stands twice in the mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def train_options() -> dict[str, Any]:
    """Names and defaults of the options of `train`, method options apart."""
    parameters = inspect.signature(commands.train).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}


def switch_names() -> list[str]:
    """The options that `Switches` adds to every method with a siamese network."""
    return [field.name for field in dataclasses.fields(Switches)]


def method_options(name: str) -> dict[str, Any]:
    """Names and defaults of a method's own options: the keyword arguments of its class, its switches among them."""
    kind = methods.get(name)
    parameters = inspect.signature(kind.__init__).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    switches = dataclasses.asdict(kind.switches) if "switches" in own else {}
    return {key: value for key, value in own.items() if key not in FILLED_IN} | switches


def recipe_for(data: Any, recipe: str | None) -> str:
    """The recipe asked for, or the one of an embedded set, or the default one."""
    embedded = str(data).split(":")[0] if isinstance(data, str | Path) else ""
    return recipe or (embedded if embedded in EMBEDDED else "default")


def recipe_settings(recipe: str, method: str | None) -> dict[str, Any]:
    """A recipe's settings for a method, the one that the recipe names where none is asked for.

    The default recipe first, then what it says of the method, then the same of the recipe itself. Where a recipe is
    made for another method, this one's default backbone stands in for the recipe's.
    """
    layers = [load_recipe(name) for name in dict.fromkeys(("default", recipe))]
    chosen = method or next(layer["method"] for layer in reversed(layers) if "method" in layer)
    backbone = methods.get(chosen).default_backbone
    settings: dict[str, Any] = {}
    for layer in layers:
        settings |= {key: value for key, value in layer.items() if key != "methods"}
        if backbone and layer.get("method", chosen) != chosen:
            settings["backbone"] = backbone
        settings |= layer.get("methods", {}).get(chosen) or {}
    return settings | {"method": chosen}


def resolve(given: Mapping[str, Any]) -> SimpleNamespace:
    """All settings of a run: what was given, else the recipe's, else what the method publishes.

    Raises `InputError` for unknown names, with the nearest one that exists.
    """
    asked = {key: value for key, value in given.items() if value is not None}
    recipe = recipe_settings(recipe_for(asked.get("data"), asked.get("recipe")), asked.get("method"))
    own = method_options(recipe["method"])
    known = train_options() | own
    for key in asked:
        if key not in known:
            raise unknown("option", key, known)
    if asked.get("backbone", recipe["backbone"]) != recipe["backbone"]:
        recipe = {key: value for key, value in recipe.items() if key not in OF_THE_BACKBONE}
    # A recipe may name options of several methods: those of the others do not concern this run.
    settings = known | {key: value for key, value in recipe.items() if key in known} | asked
    fill_published(settings, methods.get(recipe["method"]).published)
    check_ranges(settings)
    return SimpleNamespace(**settings, method_options={key: settings[key] for key in own})


def usual_warmup(published: Optimization, epochs: float) -> float:
    """The published warm-up, in epochs; a tenth of the run at most: one that ends inside it would never anneal."""
    return min(published.schedule.warmup_epochs, epochs / 10)


# Learning rate per 256 images and weight decay of an optimiser that the method does not publish.
RATES = {"lars": (0.3, 1e-6), "larc": (0.6, 1e-6), "sgd": (0.03, 1e-4), "adam": (5e-4, 0.0), "adamw": (5e-4, 0.05)}


def fill_published(settings: dict[str, Any], published: Optimization) -> None:
    """The published optimiser and its numbers, where no others were chosen; usual ones for another optimiser."""
    settings["optimizer"] = settings["optimizer"] or published.optimizer
    rate, decay = RATES.get(settings["optimizer"], RATES["sgd"])
    numbers: dict[str, float | None] = {
        "learning_rate": rate,
        "weight_decay": decay,
        "end_factor": published.schedule.end_factor,
    }
    if settings["optimizer"] == published.optimizer:
        for name in ("learning_rate", "weight_decay", "bias_learning_rate"):
            numbers[name] = getattr(published, name)
        if settings["weight_decay"] in (None, published.weight_decay):  # another one stays as it is
            numbers["weight_decay_end"] = published.weight_decay_end
    for name, value in numbers.items():
        if settings[name] is None:
            settings[name] = value
    for name in ("regularize", "backbone_options"):
        settings[name] = settings[name] or {}


# What numbers can be, in words and as a test, and for which options: a name means the same in every method.
LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "a number above 0": (
        lambda value: value > 0,
        "batch_size accumulate samples steps epochs image_size num_nodes temperature teacher_temperature "
        "warmup_teacher_temperature sharpening final_sharpening epsilon",
    ),
    "0 or more": (
        lambda value: value >= 0,
        "learning_rate weight_decay weight_decay_end warmup_epochs end_factor save_minutes queue_from_epoch "
        "freeze_epochs warmup_teacher_epochs clip",
    ),
    "1 or more": (
        lambda value: value >= 1,
        "negatives pieces prototypes words codes targets contexts sinkhorn_iterations",
    ),
    "0 to 1": (lambda value: 0 <= value <= 1, "momentum center_momentum drop_path smoothing patch_drop"),
}


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Numbers that no run can have are an error before anything is loaded."""
    for words, (holds, names) in LIMITS.items():
        for name in names.split():
            value = settings.get(name)
            if value is not None and not holds(value):
                raise InputError(f"{name} is {value}: give {words}")
    if settings["batch_size"] < 2:
        raise InputError("batch_size is 1: the statistics of a batch need at least 2 images")
    Regularizer.check(settings["regularize"])
    reason = methods.get(settings["method"]).no_accumulation
    if not reason and any(settings["regularize"].values()):
        reason = "the terms of regularize compare the samples of a batch with each other"
    if settings["accumulate"] > 1 and reason:
        raise InputError(f"{settings['method']} cannot accumulate: {reason}; give a lower --batch_size instead")
    if settings["batch_size"] % settings["accumulate"]:
        raise InputError(f"batch_size {settings['batch_size']} does not divide by accumulate {settings['accumulate']}")


def stored(settings: SimpleNamespace) -> dict[str, Any]:
    """Settings as they stand in config.yaml: everything that is needed to run again."""
    kept = {
        key: value
        for key, value in vars(settings).items()
        if key not in ("method_options", "resume", "overwrite", "plan")
    }
    if not isinstance(kept["data"], str):
        kept["data"] = str(kept["data"]) if isinstance(kept["data"], Path) else "<given from Python>"
    return kept


def agree(explicit: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """A resumed run keeps its settings: raises `InputError` for one that is given otherwise."""
    for key, value in explicit.items():
        if key not in FREE and isinstance(value, str | int | float) and before.get(key) != value:
            raise InputError(f"the run was started with {key} {before.get(key)}, not {value}: leave it out to resume")
