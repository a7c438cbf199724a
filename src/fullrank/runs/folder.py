"""A run is a folder: settings, checkpoint, backbone, metrics, summary, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from fullrank import commands, methods
from fullrank.data.tokens import Tokenizer
from fullrank.errors import InputError
from fullrank.evaluation.features import CHUNK
from fullrank.files import plain, unwritable, write_atomically, write_text
from fullrank.methods import Method
from fullrank.networks.backbone import creation_arguments, has_published_stem, load_timm_state, timm_state
from fullrank.runs.build import backbone_options, build_method, facts_of
from fullrank.runs.settings import method_options, train_options

if TYPE_CHECKING:
    from fullrank.collapse import Verdict

CONFIG, CHECKPOINT, BACKBONE = "config.yaml", "last.ckpt", "backbone.safetensors"
METRICS, SUMMARY, REPORT = "metrics.csv", "summary.json", "report.html"
TOKENIZER = "tokenizer.json"


class Run:
    """A finished or interrupted run on disk. Its parts are read when they are asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / CONFIG).is_file():
            raise InputError(
                f"{self.folder} is not a run: it has no {CONFIG}; give the folder that `fullrank train` wrote"
            )

    def __repr__(self) -> str:
        return f"Run('{self.folder}')"

    @property
    def settings(self) -> SimpleNamespace:
        """The settings that the run was started with."""
        return rebuild_settings(yaml.safe_load((self.folder / CONFIG).read_text(encoding="utf-8")))

    @property
    def summary(self) -> dict[str, Any]:
        """Results, verdict, input and versions. Raises `InputError` for a run that was killed before it had one."""
        path = self.folder / SUMMARY
        if not path.is_file():
            raise InputError(
                f"{self.folder} has no {SUMMARY}: the run was stopped before it began; start it again with --overwrite"
            )
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error})") from error

    @property
    def input(self) -> dict[str, Any]:
        """What the network takes: channels, image size and how pixels are scaled and normalised."""
        return self.summary["input"]

    @property
    def backbone(self) -> nn.Module:
        """The trained backbone in evaluation mode, with the stem that it was trained with."""
        path = self.folder / BACKBONE
        if not path.is_file():
            raise InputError(
                f"{self.folder} has no {BACKBONE} yet: finish it with `fullrank train --resume --output {self.folder}`"
            )
        model = build_method(self.settings, facts_of(self.input))[0].backbone
        try:
            load_timm_state(model, safetensors.torch.load_file(path))
        except safetensors.SafetensorError as error:
            raise InputError(f"{path} is damaged: {error}") from error
        return model.eval()

    @property
    def method(self) -> Method:
        """The whole trained network, projector included, from the checkpoint."""
        return restore(self.folder / CHECKPOINT)[0]

    def embed_captions(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Y and Z of captions, one row each, where the run was trained on captions.

        Raises `InputError` where it was not.
        """
        if not (self.folder / TOKENIZER).is_file():
            raise InputError(f"{self.folder} was trained without captions: it has no {TOKENIZER}")
        tokens = Tokenizer((self.folder / TOKENIZER).read_text(encoding="utf-8"))(captions)
        method = self.method
        with torch.no_grad():
            parts = [method.embed_captions(part.long()) for part in tokens.split(CHUNK)]
        representations, embeddings = zip(*parts, strict=True)
        return torch.cat(representations), torch.cat(embeddings)

    def evaluate(self, protocol: str = "knn", **options: Any) -> dict[str, Any]:
        """`fullrank evaluate` on this run."""
        return commands.evaluate(self, protocol=protocol, **options)

    def diagnose(self, **options: Any) -> dict[str, Verdict]:
        """`fullrank diagnose` on this run."""
        return commands.diagnose(self, **options)

    def embed(self, **options: Any) -> Path:
        """`fullrank embed` on this run."""
        return commands.embed(self, **options)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json."""
        write_text(self.folder / SUMMARY, json.dumps(plain(summary), indent=1, ensure_ascii=False) + "\n")

    def write_backbone(self, backbone: nn.Module) -> None:
        """Write the weights so that `timm.create_model(name, num_classes=0, checkpoint_path=...)` opens them.

        Where the backbone is made of two, which see a part of the channels each, only `Run.backbone` does. Where its
        stem was lowered for small images, timm's network gives other features, which the file's record says.
        """
        name, size, channels = self.settings.backbone, self.input["image_size"], self.input["channels"]
        options = backbone_options(self.settings, name)
        state = timm_state(backbone, name, channels, size, options)
        is_timms = methods.get(self.settings.method).branch_channels is None
        record = {
            "architecture": name,
            "creation": creation_arguments(name, channels, size) | options if is_timms else None,
            "as_trained": is_timms and has_published_stem(backbone, name, channels, size, options),
            "input": self.input,
        }
        content = safetensors.torch.save(state, metadata={"fullrank": json.dumps(record)})
        write_atomically(self.folder / BACKBONE, lambda file: file.write(content))


def load_run(folder: str | Path) -> Run:
    """Open a run folder. Raises `InputError` when it is none."""
    return Run(folder)


def refuse_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises `InputError` for a folder that a new run must not use: another run's, or one with other files."""
    try:
        holds_run = (folder / CONFIG).exists()
        if holds_run and not overwrite:
            raise InputError(f"{folder} holds a run already: add --resume, --overwrite or another --output")
        if folder.exists() and not holds_run and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and not a run: choose another --output")
    except OSError as error:
        raise unwritable(folder, error) from error


def start_folder(folder: Path, config: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder of a new run, in place of the run that may be overwritten."""
    refuse_folder(folder, overwrite=overwrite)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    write_text(folder / CONFIG, yaml.safe_dump(plain(config), sort_keys=False))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as tensors and plain values; code inside one is never run.

    Raises `InputError` for what is no checkpoint of this library or carries code.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except Exception as error:
        carries_code = "weights_only" in str(error) or "Unsupported" in str(error)
        what = "carries code, which is never run" if carries_code else f"cannot be read ({str(error).splitlines()[0]})"
        raise InputError(f"{path} {what}: give a checkpoint that `fullrank train` wrote") from error
    if not isinstance(checkpoint, dict) or "fullrank" not in checkpoint:
        raise InputError(f"{path} was not written by fullrank: give the last.ckpt of a run")
    return checkpoint


def restore(path: Path) -> tuple[Method, SimpleNamespace, dict[str, Any]]:
    """The trained method of a checkpoint in evaluation mode, its settings, and what its network takes."""
    checkpoint = read_checkpoint(path)
    record = checkpoint["fullrank"]
    settings = rebuild_settings(record["settings"])
    method, _ = build_method(settings, facts_of(record["input"]))
    prefix = "method."
    state = {key[len(prefix) :]: value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)}
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit the network in its own settings: {str(error).splitlines()[-1].strip()}"
        ) from error
    return method.float().eval(), settings, record["input"]


def rebuild_settings(config: dict[str, Any]) -> SimpleNamespace:
    """Settings from a stored mapping; an option that is younger than the run stands at its default."""
    config = train_options() | config
    own = method_options(config["method"])
    return SimpleNamespace(**config, method_options={key: config[key] for key in own})
