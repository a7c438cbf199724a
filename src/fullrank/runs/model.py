"""What a command means by MODEL: a run, a checkpoint, `timm:NAME`, `torchvision:NAME`, or a file of weights."""

from __future__ import annotations

from pathlib import Path

from fullrank.errors import InputError
from fullrank.evaluation.model import SUFFIXES, Model, open_library, open_weights
from fullrank.runs.folder import CONFIG, Run, restore

LIBRARIES = ("timm", "torchvision")


def open_model(
    given: str | Path | Run | Model,
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> Model:
    """The network behind MODEL, in evaluation mode.

    Args:
        given: a run or its folder, a checkpoint of one, `timm:NAME`, `torchvision:NAME` or a file of weights; or what
            was opened already.
        backbone: of a file of weights, the name of its network.
        image_size: side of the pictures, where it is not the network's own.
        pretrained: whether a library's network comes with its weights.
        seed: of a library's network without them.

    Raises:
        InputError: there is no such model, or its weights do not fit.
    """
    if isinstance(given, Model):
        return given
    if isinstance(given, Run) or (Path(given) / CONFIG).is_file():
        run = given if isinstance(given, Run) else Run(given)
        return _of_run(str(run.folder), run, image_size)
    if str(given).partition(":")[0] in LIBRARIES and ":" in str(given):
        return open_library(str(given), pretrained=pretrained, image_size=image_size, seed=seed)
    path = Path(given).expanduser()
    if not path.is_file():
        known = "the folder of a run, a checkpoint, timm:NAME, torchvision:NAME or a file of weights"
        raise InputError(f"no model '{given}': give {known}")
    if path.suffix == ".ckpt" and backbone is None:
        method, settings, taken = restore(path)
        size = image_size or taken["image_size"]
        return Model(str(path), method.backbone, settings.backbone, size, pixels=taken["pixels"])
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path.name} is no file of weights: give one of {', '.join(SUFFIXES)}")
    return open_weights(path, backbone, image_size=image_size)


def _of_run(name: str, run: Run, image_size: int | None) -> Model:
    taken = run.input
    size = image_size or taken["image_size"]
    return Model(name, run.backbone, run.settings.backbone, size, pixels=taken["pixels"], folder=run.folder)
