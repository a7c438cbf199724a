"""A vocabulary of visual words, the bags of words that it makes of feature maps, and the weights that predict them.

Gidaris et al., "OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning", CVPR 2021,
https://arxiv.org/abs/2012.11552; code: valeoai/obow, builder_obow.py `BoWExtractor` and `BoWPredictor`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fullrank import distributed
from fullrank.errors import InputError
from fullrank.networks.branch import UnitRows
from fullrank.networks.memory import Queue

Pooling = Literal["max", "mean"]


class Vocabulary(nn.Module):
    """Visual words: a queue of local features of a teacher, one of each image that it has seen lately.

    A place of a map belongs to the words by softmax(-(inv_delta / mu) d), d the squared distances to them and mu the
    moving average, from 0.5, of the distance to the nearest. An image's bag is its largest code of each word, over
    their sum. The outermost cells of a map take no part.

    Args:
        words: how many there are.
        width: channels of the maps.
        inv_delta: how sharply places belong to their nearest words; 0 for the nearest alone.
        pooling: max or mean over the places.
        window: cells a side of the average that becomes a new word, in a random place of each image; 0 for all cells.
        decay: of the moving average.
    """

    mean_distance: Tensor

    def __init__(
        self,
        words: int,
        width: int,
        *,
        inv_delta: float = 15.0,
        pooling: Pooling = "max",
        window: int = 3,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.queue = Queue(words, width)
        self.queue.rows.normal_().clamp_(min=0)  # like what comes out of a ReLU
        self.register_buffer("mean_distance", torch.tensor(0.5))
        self.inv_delta = inv_delta
        self.pooling = pooling
        self.window = window
        self.decay = decay

    @property
    def words(self) -> Float[Tensor, "k c"]:
        """The words as they are now."""
        return self.queue.rows

    @torch.no_grad()
    def forward(self, maps: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n p k"]]:
        """Bags and codes of feature maps by the words so far; in training, these maps then give new words."""
        with torch.autocast(maps.device.type, enabled=False):
            inner = interior(maps).to(self.queue.rows.dtype)
            distances = self.distances(inner)
            if self.training:
                self._follow(distances)
                self._learn(inner)
            codes = self.assign(distances)
            bags = codes.amax(1) if self.pooling == "max" else codes.mean(1)
            return bags / bags.sum(1, keepdim=True), codes

    def distances(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p k"]:
        """Squared distances of every place to every word."""
        places, words = maps.flatten(2).transpose(1, 2), self.words
        squares = places.square().sum(2, keepdim=True) + words.square().sum(1)
        return squares - 2 * places @ words.T

    def assign(self, distances: Float[Tensor, "n p k"]) -> Float[Tensor, "n p k"]:
        """How much each place belongs to each word."""
        if not self.inv_delta:
            return torch.zeros_like(distances).scatter_(2, distances.argmin(2, keepdim=True), 1.0)
        return (-self.inv_delta / self.mean_distance * distances).softmax(2)

    def _follow(self, distances: Tensor) -> None:
        nearest = distributed.all_reduce_sum(distances.amin(2).mean()) / distributed.world_size()
        self.mean_distance.lerp_(nearest, 1 - self.decay)

    def _learn(self, maps: Float[Tensor, "n c h w"]) -> None:
        sides = [min(self.window or side, side) for side in maps.shape[2:]]
        averages = nn.functional.avg_pool2d(maps, sides, stride=1).flatten(2)
        place = distributed.draw_rows(len(maps), lambda n: torch.randint(0, averages.shape[2], (n,)))
        self.queue.push(averages[torch.arange(len(maps)), :, place])


def interior(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
    """Maps without their outermost cells. Raises `InputError` where nothing else is there."""
    if min(maps.shape[2:]) < 3:
        height, width = maps.shape[2:]
        raise InputError(
            f"a feature map of {height} x {width} cells has none inside its border: "
            "give the teacher a larger view, or a lower --stem_stride"
        )
    return maps[:, :, 1:-1, 1:-1]


@torch.no_grad()
def perplexities(bags: Float[Tensor, "n k"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How many words a batch uses, and how many an image does on average: exp of the entropies of their bags."""
    together = distributed.all_reduce_sum(bags.sum(0))
    return _perplexity(together / together.sum()), _perplexity(bags).mean()


def _perplexity(shares: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    return (-(shares * (shares + 1e-5).log()).sum(-1)).exp()


def word_weights(width: int, output: int) -> nn.Sequential:
    """A network from words (k, width) to the unit weights (k, output) that predict their share in a bag.

    Its batch norm is over the words, which are the same on every process, and keeps no running averages.
    """
    return nn.Sequential(
        UnitRows(),
        nn.Linear(width, 2 * output, bias=False),
        nn.BatchNorm1d(2 * output, track_running_stats=False),
        nn.ReLU(),
        nn.Linear(2 * output, output),
        UnitRows(),
    )
