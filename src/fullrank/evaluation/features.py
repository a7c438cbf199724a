"""Frozen features: every picture of a source through a network in evaluation mode, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from fullrank.data.source import Source
from fullrank.data.statistics import Pixels
from fullrank.errors import InputError
from fullrank.evaluation.cache import BLOCK, FeatureCache

CHUNK = 256  # pictures in one forward pass
THREADS = 4  # decoding leaves Python's lock
# Larger networks see the centre of a picture that was resized a little larger, as the published protocols do.
RESIZE_MARGIN = 256 / 224
SMALL = 64  # up to this size (pixels a side) pictures are not cropped


def fit_to(image: Tensor, size: int) -> Tensor:
    """A picture (C, H, W) resized by its short side and cropped at the centre to (C, size, size)."""
    if image.shape[-2:] == (size, size):
        return image
    short = size if size <= SMALL else round(size * RESIZE_MARGIN)
    resized = vision.resize(image, [short], vision.InterpolationMode.BICUBIC, antialias=True)
    return vision.center_crop(resized, [size, size])


class Pictures:
    """Whole pictures of a source as a network takes them; unreadable ones are left out and named.

    Args:
        source: where they come from.
        taken: what a run's network takes: `pixels` (depth, scaling, normalisation) and `image_size`.
        indices: positions in the source; all of them when left out.
    """

    def __init__(self, source: Source, pixels: Pixels, image_size: int, indices: np.ndarray | None = None) -> None:
        self.source = source
        self.pixels = pixels
        self.image_size = image_size
        self.indices = np.arange(len(source)) if indices is None else indices
        self.unreadable: list[str] = []

    def some(self, part: slice) -> Pictures:
        """Those at some places, as pictures of their own; what cannot be read is noted here too."""
        chosen = Pictures(self.source, self.pixels, self.image_size, self.indices[part])
        chosen.unreadable = self.unreadable
        return chosen

    def digests(self) -> list[bytes]:
        """Of the content of each; empty for what cannot be read."""

        def digest(index: int) -> bytes:
            try:
                return self.source.digest(int(index))
            except InputError:
                return b""

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(digest, self.indices))

    def _read(self, index: int) -> Tensor | None:
        try:
            image = self.pixels.to_unit(self.source.read(int(index)))
        except InputError as error:  # unreadable, or of another kind than the set
            self.unreadable.append(str(error))
            return None
        return fit_to(torch.from_numpy(image).permute(2, 0, 1), self.image_size).clamp_(0, 1)

    def chunks(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Positions in the source and pictures in [0, 1], at most `CHUNK` at a time: (n,) and (n, C, S, S)."""
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(self.indices), CHUNK):
                part = self.indices[start : start + CHUNK]
                read = list(pool.map(self._read, part))
                kept = [position for position, image in enumerate(read) if image is not None]
                if kept:
                    yield part[kept], torch.stack([image for image in read if image is not None])


def normalise(images: Tensor, pixels: Pixels) -> Tensor:
    """Pictures in [0, 1] as the network was trained on them."""
    mean = torch.tensor(pixels.mean, device=images.device).view(-1, 1, 1)
    std = torch.tensor(pixels.std, device=images.device).view(-1, 1, 1)
    return (images - mean) / std


@torch.no_grad()
def embed_pictures(
    pictures: Pictures,
    embed: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Tensor], np.ndarray]:
    """The outputs of `embed` for every readable picture, each (N, width) on the CPU, and their positions (N,)."""
    outputs: list[list[Tensor]] = []
    positions = []
    for part, images in pictures.chunks():
        given = embed(normalise(images.to(device), pictures.pixels))
        outputs.append([value.float().cpu() for value in (given if isinstance(given, tuple) else (given,))])
        positions.append(part)
        if progress:
            progress(len(part))
    kept = np.concatenate(positions) if positions else np.empty(0, dtype=int)
    return [torch.cat(parts) for parts in zip(*outputs, strict=True)], kept


def embed_blocks(
    pictures: Pictures,
    embed: Callable[[Tensor], Tensor],
    cache: FeatureCache | None,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Features (N, width) of every readable picture and their positions (N,), blocks that `cache` holds from there."""
    features, positions = [], []
    for start in range(0, len(pictures.indices), BLOCK):
        part = pictures.some(slice(start, start + BLOCK))
        key = cache.key(part.digests()) if cache else ""
        found = cache.load(key) if cache else None
        if found is None:
            values, kept = embed_pictures(part, embed, device=device, progress=progress)
            places = torch.from_numpy(np.searchsorted(part.indices, kept))
            found = (values[0] if values else torch.empty(0, 0)), places
            if cache:
                cache.store(key, *found)
        elif progress:
            progress(len(part.indices))
        if len(found[1]):
            features.append(found[0])
            positions.append(part.indices[found[1].numpy()])
    if not features:
        raise InputError(f"not one of {len(pictures.indices):,} pictures of {pictures.source.name} can be read")
    return torch.cat(features), np.concatenate(positions)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Puts a network into evaluation mode for a block and back into what each part was before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one. Raises `InputError` for a device that is not there."""
    found = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        return torch.empty(0, device=found).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name}: {str(error).splitlines()[0]}") from error
