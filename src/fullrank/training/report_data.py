"""The pictures and curves of a run that its report shows."""

from __future__ import annotations

import json
import math
from importlib import resources
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.utils import make_grid

from fullrank.evaluation.features import Pictures, embed_pictures
from fullrank.files import write_text
from fullrank.runs.folder import Run
from fullrank.runs.settings import recipe_for
from fullrank.training.prepare import Prepared

SHOWN_VIEWS = 6  # pictures whose augmented views are shown
MAPPED = 800  # pictures on the two-dimensional map
QUERIES, NEIGHBOURS = 6, 7
THUMBNAIL = 32  # pixels a side


def pictures_for_report(backbone: nn.Module, prepared: Prepared, device: torch.device) -> dict[str, np.ndarray]:
    """Augmented views, nearest neighbours and a map of the representation, as arrays."""
    chosen = np.unique(np.linspace(0, len(prepared.source) - 1, min(MAPPED, len(prepared.source))).astype(int))
    pictures = Pictures(prepared.source, prepared.pixels, prepared.image_size, chosen)
    (features,), kept = embed_pictures(pictures, backbone, device=device)
    shown = torch.cat(
        [images for _, images in Pictures(prepared.source, prepared.pixels, prepared.image_size, kept).chunks()]
    )
    arrays = shown_views(shown[:SHOWN_VIEWS], prepared, device)
    arrays |= {
        "map_xy": flatten_to_map(features),
        "map_thumbs": to_bytes(thumbnails(shown, THUMBNAIL)),
        "map_name": np.array([str(prepared.source.names[each]) for each in kept]),
    }
    arrays |= neighbours(features, shown)
    if prepared.source.labels is not None:
        labels = prepared.source.labels[kept]
        arrays |= {"map_label": labels, "class_names": np.array(prepared.source.classes)}
        arrays |= {
            "query_label": labels[arrays["query_index"]],
            "neighbours_label": labels[arrays["neighbours_index"]],
        }
    return {name: array for name, array in arrays.items() if not name.endswith("_index")}


def shown_views(images: Tensor, prepared: Prepared, device: torch.device) -> dict[str, np.ndarray]:
    """Each picture beside its random views as the network sees them: (R, V+1, H, W, 3) uint8."""
    augment = prepared.feed.augment  # type: ignore[attr-defined]
    torch.manual_seed(0)
    views = augment(images.to(device))
    mean = torch.tensor(prepared.pixels.mean).view(-1, 1, 1)
    std = torch.tensor(prepared.pixels.std).view(-1, 1, 1)
    shown = [mosaic(view.cpu().float() * std + mean) for view in views]
    size = shown[0].shape[-1]
    rows = [thumbnails(each, size) for each in (images, *shown)]
    return {"views": to_bytes(torch.stack(rows, dim=1))}


def mosaic(views: Tensor) -> Tensor:
    """Pictures (n, C, S, S) as they are; the pieces of puzzles (n, k, C, S, S) laid out in a square, white between."""
    if views.ndim == 4:
        return views
    side = math.ceil(views.shape[1] ** 0.5)
    square = nn.functional.pad(views, (0,) * 7 + (side**2 - views.shape[1],), value=1.0)
    return torch.stack([make_grid(pieces, side, padding=1, pad_value=1.0) for pieces in square])


def neighbours(features: Tensor, images: Tensor) -> dict[str, np.ndarray]:
    """Some pictures and those whose representations are most similar (cosine)."""
    vectors = normalize(features, dim=1)
    queries = torch.linspace(0, len(vectors) - 1, min(QUERIES, len(vectors))).long()
    similarity = vectors[queries] @ vectors.T
    similarity[torch.arange(len(queries)), queries] = -torch.inf
    best = similarity.topk(min(NEIGHBOURS, len(vectors) - 1), dim=1)
    small = thumbnails(images, min(96, images.shape[-1]))
    return {
        "neighbours_query": to_bytes(small[queries]),
        "neighbours": to_bytes(small[best.indices]),
        "neighbours_similarity": best.values.numpy(),
        "query_index": queries.numpy(),
        "neighbours_index": best.indices.numpy(),
    }


def flatten_to_map(features: Tensor) -> np.ndarray:
    """Two coordinates a picture, so that similar representations lie close: t-SNE on the leading components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = normalize(features, dim=1).numpy()
    leading = PCA(min(30, *values.shape), random_state=0).fit_transform(values)
    if len(values) < 8 or not np.ptp(leading) > 1e-9:
        return np.pad(leading, ((0, 0), (0, 2)))[:, :2]
    return TSNE(perplexity=min(30, len(values) / 4), init="pca", random_state=0).fit_transform(leading)


def thumbnails(images: Tensor, size: int) -> Tensor:
    """Pictures (..., C, H, W) in [0, 1] as (..., size, size, 3): other channel counts show their first ones."""
    colour = (
        images[..., :3, :, :] if images.shape[-3] >= 3 else images[..., :1, :, :].expand(*images.shape[:-3], 3, -1, -1)
    )
    if colour.shape[-1] != size:
        flat = colour.reshape(-1, *colour.shape[-3:])
        flat = nn.functional.interpolate(flat, (size, size), mode="bilinear", antialias=True, align_corners=False)
        colour = flat.view(*colour.shape[:-2], size, size)
    return colour.movedim(-3, -1)


def to_bytes(images: Tensor) -> np.ndarray:
    """[0, 1] as uint8."""
    return (images.clamp(0, 1) * 255).round().byte().numpy()


def reference_curves(run: Run, settings: SimpleNamespace) -> None:
    """Put the curves of healthy runs of the same recipe and method beside the run's own, where the package has them."""
    curves = resources.files("fullrank") / "recipes" / f"{recipe_for(settings.data, settings.recipe)}.curves.json"
    if curves.is_file():
        text = curves.read_text(encoding="utf-8")
        if json.loads(text)["method"] == settings.method:
            write_text(run.folder / "reference.json", text)
