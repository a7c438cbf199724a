"""From settings and facts about the data to a method with its network."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fullrank import methods
from fullrank.errors import InputError, unknown
from fullrank.methods import DataFacts, Method
from fullrank.networks import MultiCrop, Switches, create_text_encoder, is_text_encoder
from fullrank.networks.backbone import Stem, create_backbone
from fullrank.networks.text import HUB, TEXT_ENCODERS
from fullrank.runs.settings import switch_names
from fullrank.views import Recipe

TEXT_ENCODER = "gru"  # where the method wants one and none is named


def facts_of(taken: dict[str, Any]) -> DataFacts:
    """What a run stores about its data (`input` in its summary) as a method takes it."""
    pixels = taken["pixels"]
    return DataFacts(
        samples=taken["samples"],
        classes=taken["classes"],
        image_size=taken["image_size"],
        channels=taken["channels"],
        mean=tuple(pixels["mean"]),
        std=tuple(pixels["std"]),
        vocabulary=taken.get("vocabulary", 0),
    )


def build_method(settings: SimpleNamespace, facts: DataFacts) -> tuple[Method, Stem]:
    """The method with its network, initialised from the run's seed.

    Raises `InputError` for a backbone or branches that the method cannot have.
    """
    kind = methods.get(settings.method)
    torch.manual_seed(settings.seed)
    channels = kind.branch_channels or (facts.channels, facts.channels)
    backbone, stem = _backbone(settings, settings.backbone, channels[0], facts)
    accepted = inspect.signature(kind.__init__).parameters
    given = dict(settings.method_options)
    if "switches" in accepted:
        given["switches"] = Switches(**{name: given.pop(name) for name in switch_names()})
    if "facts" in accepted:
        given["facts"] = facts
    text = text_encoder_of(settings)
    if text:
        given["second"] = create_text_encoder(text, facts.vocabulary)
    elif wants_second(settings, kind):
        given["second"] = _backbone(settings, settings.backbone2 or settings.backbone, channels[1], facts)[0]
    return kind(backbone, **given), stem  # type: ignore[arg-type]


def text_encoder_of(settings: SimpleNamespace) -> str | None:
    """The name of the text encoder that captions go through; None where both views are pictures.

    Raises `InputError` for a method that cannot take captions, or takes nothing else.
    """
    kind, name = methods.get(settings.method), settings.backbone2
    if kind.second_is_text and not is_text_encoder(name or TEXT_ENCODER):
        raise unknown(f"text encoder of {settings.method}", name or "", [*TEXT_ENCODERS, f"{HUB}NAME"])
    if kind.second_is_text:
        return name or TEXT_ENCODER
    if name is None or not is_text_encoder(name):
        return None
    reason = "its networks take the channels of one picture" if kind.branch_channels else kind.one_network
    if reason:
        raise InputError(f"{settings.method} cannot take captions: {reason}; leave out --backbone2 {name}")
    if settings.branches == "shared":
        raise InputError(f"backbone2 {name} is a branch of its own: leave out --branches shared")
    return name


def wants_second(settings: SimpleNamespace, kind: type[Method]) -> bool:
    """Whether the second view goes through a network of its own."""
    if kind.branch_channels:
        return True
    if settings.branches != "separate" and settings.backbone2 is None:
        return False
    if settings.branches == "shared":
        raise InputError(f"backbone2 {settings.backbone2} is a branch of its own: leave out --branches shared")
    if kind.one_network:
        raise InputError(f"{settings.method} cannot have separate branches: {kind.one_network}")
    return True


def _backbone(settings: SimpleNamespace, name: str, channels: int, facts: DataFacts) -> tuple[nn.Module, Stem]:
    kind = methods.get(settings.method)
    try:
        return create_backbone(
            name,
            channels=channels,
            image_size=facts.image_size,
            stem_stride=settings.stem_stride if name == settings.backbone else None,
            options=backbone_options(settings, name),
        )
    except InputError as error:
        if not kind.backbone_options:
            raise
        raise InputError(f"{error}; {settings.method} needs a network such as {kind.default_backbone}") from error


def check_sizes(method: Method, recipe: Recipe, channels: int) -> None:
    """Raises `InputError` for a backbone that cannot take one of the views, or its pieces."""
    network = method.network
    seen = {shape[-2:] for shape in (view.shape(channels) for view in recipe)}
    is_training = method.training
    method.eval()
    for height, width in sorted(seen):
        image = torch.zeros(1, channels, height, width)
        try:
            with torch.no_grad():
                network([image]) if isinstance(network, MultiCrop) else network.backbone(image)
        except (AssertionError, RuntimeError, ValueError) as error:
            kind = type(network.backbone).__name__
            raise InputError(f"the backbone ({kind}) cannot take views of {height} x {width} px: {error}") from error
    method.train(is_training)


def backbone_options(settings: SimpleNamespace, name: str) -> dict[str, Any]:
    """With which arguments timm builds a network: those asked for the first one, and those that the method needs."""
    asked = settings.backbone_options if name == settings.backbone else {}
    return {**asked, **methods.get(settings.method).backbone_options}
