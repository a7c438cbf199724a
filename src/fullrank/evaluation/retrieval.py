"""Image-text retrieval: recalls and ranks of captions for every image, and of images for every caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fullrank.errors import InputError, unknown
from fullrank.evaluation.protocol import Array, check_features

CUTOFFS = (1, 5, 10)
HELD = 1 << 25  # numbers that are held at once
Measure = Literal["cosine", "order"]


@dataclass(frozen=True)
class Ranks:
    """Places of the right answers, from 0, and what came first.

    Attributes:
        i2t: of the best of an image's captions among all captions.
        t2i: of a caption's image among all images.
        first_i2t: the caption that came first for an image.
        first_t2i: the image that came first for a caption.
    """

    i2t: Int[Tensor, " n"]
    t2i: Int[Tensor, " m"]
    first_i2t: Int[Tensor, " n"]
    first_t2i: Int[Tensor, " m"]

    def figures(self) -> dict[str, float]:
        """Recalls at 1, 5 and 10 in percent, median and mean rank from 1; `rsum` is the sum of the six recalls."""
        found: dict[str, float] = {}
        for name, ranks in (("i2t", self.i2t), ("t2i", self.t2i)):
            places = ranks.cpu().numpy()
            recalls = {f"{name}_r{k}": 100 * float(np.mean(places < k)) for k in CUTOFFS}
            found |= recalls | {f"{name}_recall": float(np.mean(list(recalls.values())))}
            found[f"{name}_median"] = float(np.floor(np.median(places)) + 1)
            found[f"{name}_mean"] = float(places.mean() + 1)
        return found | {"rsum": sum(found[f"{name}_r{k}"] for name in ("i2t", "t2i") for k in CUTOFFS)}


def retrieval(
    images: Float[Array, "n d"],
    captions: Float[Array, "m d"],
    owners: Int[Array, " m"] | None = None,
    *,
    measure: Measure = "cosine",
    folds: int = 1,
) -> dict[str, float]:
    """The figures of `Ranks`, each the mean over `folds` equal parts of the images with their captions.

    Five folds of 1,000 images are the 1K protocol on COCO; medians are averaged too (fartashf/vsepp, evalrank).

    Args:
        images: one embedding an image.
        captions: one embedding a caption.
        owners: the image of each caption; each has m / n of them, in order, when left out.
        measure: cosine, the inner product (give rows of length 1), or order, -|max(0, caption - image)|.
        folds: parts of the images, in order.

    Raises:
        InputError: embeddings that are empty, not finite or of different widths, or owners or folds that do not fit.
    """
    x, y = check_features("image", images), check_features("caption", captions)
    of = _check_owners(owners, len(x), len(y))
    if len(x) % folds:
        raise InputError(f"{len(x)} images do not make {folds} equal folds")
    size = len(x) // folds
    parts = []
    for start in range(0, len(x), size):
        inside = (of >= start) & (of < start + size)
        parts.append(retrieval_ranks(x[start : start + size], y[inside], of[inside] - start, measure=measure).figures())
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def retrieval_ranks(
    images: Float[Array, "n d"],
    captions: Float[Array, "m d"],
    owners: Int[Array, " m"] | None = None,
    *,
    measure: Measure = "cosine",
) -> Ranks:
    """Who comes where, as in VSE++ (fartashf/vsepp, evaluation.py i2t and t2i); arguments as in `retrieval`.

    A place is the number of those that score higher and half of the others that score the same: embeddings that have
    collapsed to a point come out in the middle. The authors' code leaves equal scores to the order of a sort.

    Raises:
        InputError: as `retrieval`.
    """
    if measure not in ("cosine", "order"):
        raise unknown("measure", measure, ("cosine", "order"))
    x, y = check_features("image", images), check_features("caption", captions).to(torch.as_tensor(images).device)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"images are {x.shape[1]} wide and captions {y.shape[1]}: expected embeddings in one space")
    of = _check_owners(owners, len(x), len(y)).to(x.device)
    best, top = (torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device) for _ in range(2))
    i2t, first_i2t = (torch.zeros(len(x), dtype=torch.long, device=x.device) for _ in range(2))
    t2i, first_t2i = [], []
    for part, scores in _scores(x, y, measure):
        own = scores.gather(0, of[part][None])[0]
        best.scatter_reduce_(0, of[part], own, "amax")
        t2i.append((scores > own).sum(0) + ((scores == own).sum(0) - 1) // 2)
        first_t2i.append(scores.argmax(0))
    same, rows = torch.zeros_like(i2t), torch.arange(len(x), device=x.device)[:, None]
    for part, scores in _scores(x, y, measure):  # again, now that the best caption of every image is known
        i2t += (scores > best[:, None]).sum(1)
        same += ((scores == best[:, None]) & (of[part] != rows)).sum(1)
        value, place = scores.max(1)
        first_i2t = torch.where(value > top, place + part.start, first_i2t)
        top = torch.maximum(value, top)
    return Ranks(i2t + same // 2, torch.cat(t2i), first_i2t, torch.cat(first_t2i))


def _scores(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], measure: Measure) -> Iterator[tuple[slice, Tensor]]:
    """The scores of all images with some captions at a time, (n, c)."""
    step = max(1, HELD // (len(x) * (x.shape[1] if measure == "order" else 1)))
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        if measure == "cosine":
            yield part, x @ y[part].T
        else:
            yield part, -(y[None, part] - x[:, None]).clamp_min(0).norm(dim=2)


def _check_owners(owners: Int[Array, " m"] | None, n: int, m: int) -> Int[Tensor, " m"]:
    if owners is None:
        if m % n:
            raise InputError(f"{m} captions do not divide among {n} images: give owners, the image of each caption")
        return torch.arange(n).repeat_interleave(m // n)
    of = torch.as_tensor(owners).long()
    if of.shape != (m,) or len(of.unique()) != n or int(of.min()) != 0 or int(of.max()) != n - 1:
        raise InputError(f"owners of shape {tuple(of.shape)}: expected {m} numbers 0 .. {n - 1}, each image among them")
    return of
