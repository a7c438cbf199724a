"""OBoW: l = sum_crops mean_levels KL(b || softmax(kappa f(crop) . g(V))), b the bag of words V in a teacher's image.

Gidaris, Bursuc, Puy et al.: "OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning", CVPR 2021,
https://arxiv.org/abs/2012.11552; the authors' code is valeoai/obow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank import losses
from fullrank.errors import InputError
from fullrank.methods.method import Batch, DataFacts, Method, Optimization, Step, register
from fullrank.networks import (
    Branch,
    FeatureMaps,
    Momentum,
    Vocabulary,
    feature_width,
    perplexities,
    refuse_fixed_size,
    word_weights,
)
from fullrank.networks.vocabulary import Pooling
from fullrank.schedules import Schedule, cosine
from fullrank.views import obow_views


@register("obow")
class OBoW(Method):
    """The first view, whole, goes through a momentum teacher; all others are crops, which predict its bags of words.

    In one step: the crops are predicted with the words so far; the teacher follows the student, with a momentum that
    goes to 1 along a cosine; it makes the bags by the same words; its maps give new words. There is no projector: Z
    is Y. The vocabulary need not be a multiple of the batch, as it must be in the authors' code.

    Args:
        backbone: images (n, c, h, w) -> representations (n, `num_features`); its stages give the teacher's maps.
        words: size of the vocabulary of each level.
        levels: how many of the backbone's last stages have a vocabulary.
        inv_delta: how sharply places of a map belong to their nearest words; 0 for the nearest alone.
        kappa: factor of the predictions.
        pooling: max or mean of an image's codes over its places.
        momentum: of the teacher at the start of the run.
        facts: channels and size of the images, to look at the maps of one.
    """

    family = "self-distillation"
    paper = "Gidaris et al., CVPR 2021, arXiv:2012.11552"
    views = staticmethod(obow_views)
    fewest_views = 2
    published = Optimization(
        "sgd", 0.03, weight_decay=1e-4, batch_size=256, epochs=200, schedule=Schedule(), decays_1d=True
    )
    no_accumulation = "the teacher and its vocabularies move in every pass"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        words: int = 8192,
        levels: int = 2,
        inv_delta: float = 15.0,
        kappa: float = 8.0,
        pooling: Pooling = "max",
        momentum: float = 0.99,
        facts: DataFacts = DataFacts(),  # noqa: B008 - frozen
    ) -> None:
        refuse_fixed_size(backbone, "obow")
        super().__init__(Branch(backbone, nn.Identity()))
        self.kappa, self.momentum = kappa, momentum
        self.teacher = Momentum(FeatureMaps(backbone, levels))
        image = torch.zeros(1, facts.channels, facts.image_size, facts.image_size)
        widths = [maps.shape[1] for maps in self.teacher.eval()(image)]
        self.vocabularies = nn.ModuleList(
            Vocabulary(words, width, inv_delta=inv_delta, pooling=pooling) for width in widths
        )
        self.generators = nn.ModuleList(word_weights(width, feature_width(backbone)) for width in widths)
        self.teacher.train()

    def forward(self, batch: Batch) -> Step:
        """Predictions, teacher, bags, loss, in this order."""
        image, *views = batch.views
        weights = [g(vocabulary.words) for g, vocabulary in zip(self.generators, self.vocabularies, strict=True)]
        crops = by_size(views)
        features = {size: self.network(same.flatten(0, 1))[0] for size, same in crops.items()}
        logits = {f"crops_{size}": [self.kappa * y @ w.T for w in weights] for size, y in features.items()}
        if self.training:
            self.teacher.follow(self.backbone, cosine(batch.progress.share, self.momentum, 1.0))
        bags = [words(maps)[0] for words, maps in zip(self.vocabularies, self.teacher(image), strict=True)]
        terms = losses.obow(logits, bags)
        for level, bag in enumerate(bags):
            terms[f"batch_perplexity_{level}"], terms[f"image_perplexity_{level}"] = perplexities(bag)
        each = [rows for size, y in features.items() for rows in y.unflatten(0, crops[size].shape[:2]).unbind(1)]
        return Step(terms.pop("loss"), terms, each, each)


def by_size(views: list[Tensor]) -> dict[int, Tensor]:
    """Crops (n, m, c, s, s) by their size s: those of an image stand together. Raises `InputError` for none."""
    if not views:
        raise InputError("obow got one view: give the teacher's, then views that are crops")
    same: dict[int, list[Tensor]] = {}
    for view in views:
        same.setdefault(view.shape[-1], []).append(view if view.ndim == 5 else view.unsqueeze(1))
    return {size: torch.cat(crops, 1) for size, crops in same.items()}
